"""The demo that `make run` serves, served: the page, the streamed page and the upload form, by a client each.

What the application does by itself is in test_demo.py.
"""

import concurrent.futures
import hashlib
import html
import re

import httpx
import pytest
import requests
from serving import APPLICATIONS, CLIENT_S, EXAMPLES, MIB, curl, random_bytes, serving, sha256

import hoopsnake

UPLOAD_BYTES = 5 * MIB


@pytest.fixture(scope="module")
def demo(driver):
    folder = EXAMPLES / "demo"
    arguments = ["--chdir", str(folder), "--config", str(folder / "hoopsnake.toml"), "--workers", "4"]
    # The word for the application comes before the file's.
    arguments += ["--pythonpath", str(APPLICATIONS)]
    with serving(driver, "demo_gated", *arguments, cwd=APPLICATIONS) as server:
        yield server


def test_front_page_says_what_is_going_on(demo, driver):
    response = requests.get(demo.url + "/?a=<b>", timeout=CLIENT_S, headers={"X-Test": "yes"})
    assert response.status_code == 200
    assert int(response.headers["Content-Length"]) == len(response.content)
    assert response.headers["Server"].startswith("hoopsnake")
    assert "Date" in response.headers
    assert f"<dt>Reactor</dt><dd>{driver}</dd>" in response.text
    assert f"<dt>Server</dt><dd>hoopsnake/{hoopsnake.__version__}</dd>" in response.text
    assert re.search(r"<dt>Worker thread</dt><dd>hoopsnake-worker-[1-4]</dd>", response.text)
    shown = dict(re.findall(r"<code>([\w.]+)</code></th><td>(.*?)</td>", response.text))
    assert html.unescape(shown["HTTP_X_TEST"]) == "'yes'"
    assert html.unescape(shown["SERVER_PORT"]) == f"'{demo.port}'"
    assert html.unescape(shown["PATH_INFO"]) == "'/'"
    assert shown["wsgi.input_terminated"] == "True"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("POST", "/", 405), ("HEAD", "/", 200)]
)
def test_statuses(demo, method, path, status):
    response = httpx.request(method, demo.url + path, timeout=CLIENT_S)
    assert response.status_code == status
    assert (response.content == b"") == (method == "HEAD")


def test_streamed_page_arrives_number_by_number(demo):
    """demo_gated lets the page wait for /_next in place of a quarter of a second."""
    with (
        httpx.Client(timeout=CLIENT_S) as other,
        httpx.stream("GET", demo.url + "/stream", timeout=CLIENT_S) as response,
    ):
        pieces, text = response.iter_text(), ""
        for number in range(1, 21):
            while f"<li>number {number}," not in text:
                text += next(pieces)
            assert f"number {number + 1}," not in text
            # The application stands still until this.
            assert other.get(demo.url + "/_next").text == "went on"
        text += "".join(pieces)
    assert text.rstrip().endswith("</html>")


def test_download(demo):
    name = EXAMPLES / "demo" / "wsgi_app.py"
    assert sha256(curl(demo.url + "/download")) == sha256(name.read_bytes())


def test_static_file_comes_without_a_worker(demo):
    since = demo.access_log.mark()
    response = httpx.get(demo.url + "/static/hoop.svg", timeout=CLIENT_S)
    assert response.headers["Content-Type"].startswith("image/svg+xml")
    assert response.content == (EXAMPLES / "demo" / "static" / "hoop.svg").read_bytes()
    demo.access_log.wait_for(r'1:0 - .* "GET /static/hoop.svg', since)


def test_cached_page_is_made_once(demo):
    first, second = (httpx.get(demo.url + "/cached?once", timeout=CLIENT_S) for _ in range(2))
    assert first.text == second.text
    assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("MISS", "HIT")


def test_all_who_wait_hear_the_bell(demo):
    """More of them than there are workers. One that isn't parked yet hears it too: the server remembers."""
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(httpx.get, demo.url + "/wait", timeout=CLIENT_S) for _ in range(12)]
        while not all(reader.done() for reader in waiting):
            assert httpx.post(demo.url + "/ring", timeout=CLIENT_S).status_code == 200
        assert all("The bell was rung at" in reader.result().text for reader in waiting)


@pytest.mark.parametrize("client", ["requests", "httpx", "curl"])
def test_upload_form(demo, client, tmp_path):
    data = random_bytes(UPLOAD_BYTES)
    url = demo.url + "/upload"
    if client == "requests":
        page = requests.post(url, files={"file": ("the file.bin", data)}, timeout=CLIENT_S).text
    elif client == "httpx":
        page = httpx.post(url, files={"file": ("the file.bin", data)}, timeout=CLIENT_S).text
    else:
        path = tmp_path / "the file.bin"
        path.write_bytes(data)
        page = curl("--form", f"file=@{path}", url).decode()
    assert f"<dd>{UPLOAD_BYTES} bytes</dd>" in page
    assert f"<dd>{hashlib.sha256(data).hexdigest()}</dd>" in page
    assert "<dd>the file.bin</dd>" in page or "<dd>the%20file.bin</dd>" in page
