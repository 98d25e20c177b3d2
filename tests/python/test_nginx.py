"""Behind nginx as docs/deployment.md shows it: kept connections to the server, by TCP and by a Unix socket."""

import concurrent.futures
import re

import pytest
import requests
from nginx import NGINX, nginx
from serving import APPLICATIONS, CLIENT_S, MIB, random_bytes, serving, sha256

REQUESTS = 1000
CLIENTS = 8
KEPT = 16
LARGE_BYTES = 20 * MIB
# TEST-NET-3 (RFC 5737): an address that is nobody's.
CLIENT = "203.0.113.9"

CONFIGURATION = """
upstream site {{
    server {upstream};
    keepalive {kept};
    keepalive_timeout 50s;
}}
server {{
    listen 127.0.0.1:{port};
    client_max_body_size 1g;
    location / {{
        proxy_pass http://site;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto https;
        proxy_request_buffering off;
        proxy_buffering off;
        proxy_read_timeout 130s;
    }}
}}
"""

pytestmark = pytest.mark.skipif(not NGINX, reason="nginx isn't installed (apt-get install nginx-light)")


@pytest.fixture(scope="module", params=["tcp", "unix"])
def proxied(request, driver, tmp_path_factory):
    """The URL of nginx, the server behind it, and the kind of socket between them."""
    folder = tmp_path_factory.mktemp("nginx")
    sockets = ("127.0.0.1:0",) if request.param == "tcp" else (f"unix:{folder}/socket",)
    with serving(driver, "proxied", "--workers", "4", cwd=APPLICATIONS, sockets=sockets) as server:
        upstream = f"127.0.0.1:{server.port}" if request.param == "tcp" else sockets[0]
        with nginx(folder, CONFIGURATION, upstream=upstream, kept=KEPT) as port:
            yield f"http://127.0.0.1:{port}", server, request.param


def test_forwarded_scheme_and_address(proxied):
    url, server, _ = proxied
    mark = server.access_log.mark()
    answer = requests.get(url + "/seen", headers={"X-Forwarded-For": CLIENT}, timeout=CLIENT_S).json()
    assert answer["wsgi.url_scheme"] == "https"
    assert answer["HTTP_X_FORWARDED_FOR"] == f"{CLIENT}, 127.0.0.1"
    line = server.access_log.wait_for('"GET /seen HTTP/1.1" 200 ', mark).string
    assert line.startswith(f"{CLIENT} 1:")


def test_nobody_is_believed_when_no_proxy_is_trusted(driver, tmp_path):
    arguments = ("--trusted-proxies", "none")
    with serving(driver, "proxied", *arguments, cwd=APPLICATIONS) as server:
        with nginx(tmp_path, CONFIGURATION, upstream=f"127.0.0.1:{server.port}", kept=KEPT) as port:
            url = f"http://127.0.0.1:{port}"
            answer = requests.get(url + "/seen", headers={"X-Forwarded-For": CLIENT}, timeout=CLIENT_S).json()
        line = server.access_log.wait_for('"GET /seen HTTP/1.1" 200 ').string
    assert answer["wsgi.url_scheme"] == "http"
    assert line.startswith("127.0.0.1 1:")


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_large_upload(proxied, chunked):
    url, _, _ = proxied
    data = random_bytes(LARGE_BYTES)
    pieces = (data[start : start + MIB] for start in range(0, len(data), MIB))
    answer = requests.post(url + "/upload", data=pieces if chunked else data, timeout=CLIENT_S).json()
    assert answer == {"size": LARGE_BYTES, "sha256": sha256(data)}


@pytest.mark.parametrize("path", ["/stream", "/whole", "/file"])
def test_large_response(proxied, path):
    url, _, _ = proxied
    response = requests.get(f"{url}{path}?{LARGE_BYTES}", timeout=CLIENT_S)
    assert response.status_code == 200
    assert sha256(response.content) == sha256(random_bytes(LARGE_BYTES))


def test_thousand_requests_on_few_connections(proxied):
    url, server, kind = proxied

    def client(number):
        with requests.Session() as session:
            answers = []
            for turn in range(REQUESTS // CLIENTS):
                path = f"/seen/{number}/{turn}"
                answer = session.post(url + path, data=path * (1 + turn % 50), timeout=CLIENT_S).json()
                assert (answer["PATH_INFO"], answer["size"]) == (path, len(path) * (1 + turn % 50))
                answers.append(answer)
            return answers

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
        answers = [answer for some in clients.map(client, range(CLIENTS)) for answer in some]
    assert len(answers) == REQUESTS
    if kind == "tcp":
        # nginx keeps as many as it is told, and needs no more than there are clients.
        assert len({answer["REMOTE_PORT"] for answer in answers}) <= KEPT
    assert not re.search(r"\[error\]", server.error_log.text())
