"""The Flask example as a real site, driven by requests, httpx and curl."""

import concurrent.futures
import re

import httpx
import pytest
import requests
from serving import APPLICATIONS, CLIENT_S, EXAMPLES, MIB, curl, random_bytes, serving, sha256
from uploads import CLIENTS, uploaded

UPLOAD_BYTES = 20 * MIB
FILE_BYTES = 3 * MIB + 17


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("flask")
    (path / "file.bin").write_bytes(random_bytes(FILE_BYTES))
    return path


@pytest.fixture(scope="module")
def site(driver, folder):
    arguments = ("--chdir", str(EXAMPLES / "flask_site"), "--pythonpath", str(APPLICATIONS), "--workers", "4")
    environment = {"FLASK_MORE_FOLDER": str(folder), "FLASK_SITE_SECRET": "for tests"}
    with serving(driver, "flask_more:application", *arguments, cwd=folder, environment=environment) as server:
        yield server


def test_page_and_json(site):
    assert curl(site.url + "/") == b"Hello, World!"
    response = requests.get(site.url + "/json", timeout=CLIENT_S)
    assert len(response.json()["items"]) == 200
    assert int(response.headers["Content-Length"]) == len(response.content)


def test_cookies_belong_to_their_session(site):
    with requests.Session() as one, httpx.Client(timeout=CLIENT_S) as other:
        counts = []
        for _ in range(3):
            counts.append(
                (one.get(site.url + "/count", timeout=CLIENT_S).json(), other.get(site.url + "/count").json())
            )
    assert counts == [({"count": n}, {"count": n}) for n in (1, 2, 3)]


def test_form_redirect_and_session(site):
    with requests.Session() as session:
        response = session.post(site.url + "/login", data={"user": "Zoë & co"}, timeout=CLIENT_S)
        assert [step.status_code for step in response.history] == [302]
        assert response.json() == {"user": "Zoë & co"}
    assert requests.get(site.url + "/user", timeout=CLIENT_S).json() == {"user": None}


@pytest.mark.parametrize("client", CLIENTS)
def test_upload(site, client, tmp_path):
    data = random_bytes(UPLOAD_BYTES)
    answer = uploaded(client, site.url + "/upload", data, tmp_path)
    assert answer == {"name": "a.bin", "size": UPLOAD_BYTES, "sha256": sha256(data)}


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 4 * MIB])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_raw_body_comes_back(site, size, chunked):
    data = random_bytes(size)
    pieces = (data[start : start + 70_001] for start in range(0, size, 70_001))
    response = requests.post(site.url + "/echo", data=pieces if chunked else data, timeout=CLIENT_S)
    assert response.status_code == 200
    assert response.content == data


def test_streamed_page(site):
    expected = "".join(f"{number}\n" for number in range(100_000))
    with httpx.stream("GET", site.url + "/stream?numbers=100000", timeout=CLIENT_S) as response:
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert "".join(response.iter_text()) == expected
    assert curl("--http1.0", site.url + "/stream?numbers=100000").decode() == expected


def test_generator_with_its_request(site):
    response = requests.get(site.url + "/lines", params={"word": "snake", "lines": 500}, timeout=CLIENT_S)
    assert response.text.splitlines() == [f"snake {number}" for number in range(500)]


def test_file(site, folder):
    data = (folder / "file.bin").read_bytes()
    url = site.url + "/file"
    response = requests.get(url, timeout=CLIENT_S)
    assert response.headers["Content-Length"] == str(FILE_BYTES)
    assert sha256(response.content) == sha256(data)
    assert sha256(curl(url)) == sha256(data)
    assert requests.get(url, headers={"If-None-Match": response.headers["ETag"]}, timeout=CLIENT_S).status_code == 304
    head = requests.head(url, timeout=CLIENT_S)
    assert head.headers["Content-Length"] == str(FILE_BYTES)


@pytest.mark.parametrize(
    ("asked", "first", "after"),
    [("bytes=0-0", 0, 1), ("bytes=1000000-2000000", 1_000_000, 2_000_001), ("bytes=-5", FILE_BYTES - 5, FILE_BYTES)],
)
def test_part_of_a_file(site, folder, asked, first, after):
    response = requests.get(site.url + "/file", headers={"Range": asked}, timeout=CLIENT_S)
    assert response.status_code == 206
    assert response.headers["Content-Range"] == f"bytes {first}-{after - 1}/{FILE_BYTES}"
    assert response.content == (folder / "file.bin").read_bytes()[first:after]


def test_many_clients_at_once(site, folder):
    """None gets another one's answer, on kept connections, with small and large responses between each other."""
    data = (folder / "file.bin").read_bytes()

    def client(number):
        with requests.Session() as session:
            for turn in range(10):
                body = f"{number} {turn}".encode() * (1 + 1000 * (turn % 2))
                assert session.post(site.url + "/echo", data=body, timeout=CLIENT_S).content == body
                if turn == 5:
                    assert session.get(site.url + "/file", timeout=CLIENT_S).content == data

    with concurrent.futures.ThreadPoolExecutor(16) as clients:
        list(clients.map(client, range(16)))


def test_sleeping_requests_run_together(site):
    with concurrent.futures.ThreadPoolExecutor(4) as clients:
        url = site.url + "/sleep?seconds=0.5"
        names = {
            answer.json()["thread"] for answer in clients.map(lambda _: httpx.get(url, timeout=CLIENT_S), range(4))
        }
    assert names <= {f"hoopsnake-worker-{number}" for number in range(1, 5)}
    assert len(names) > 1


def test_failure_is_a_500_with_a_traceback_in_the_error_log(site):
    mark = site.error_log.mark()
    assert requests.get(site.url + "/fail", timeout=CLIENT_S).status_code == 500
    site.error_log.wait_for("RuntimeError: this view always fails", mark)
    assert "Traceback (most recent call last)" in site.error_log.text(mark)
    site.access_log.wait_for('"GET /fail HTTP/1.1" 500 ')


def test_late_failure_cuts_the_response(site):
    mark = site.error_log.mark()
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(site.url + "/fail-late", timeout=CLIENT_S)
    site.error_log.wait_for("RuntimeError: a late failure of Flask", mark)


def test_access_log(site):
    mark = site.access_log.mark()
    curl("--user-agent", "a test", "--referer", "http://example.com/", site.url + "/user?a=b")
    line = site.access_log.wait_for(r".*/user\?a=b.*", mark)[0]
    assert re.fullmatch(
        r'127\.0\.0\.1 1:[1-4] - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /user\?a=b HTTP/1\.1" 200 - '
        r'"http://example\.com/" "a test" \d+ms \d+ms 500',
        line,
    )
