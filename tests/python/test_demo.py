"""The demo application by itself, under wsgiref's validator: no server, so uploads can come in every block size."""

import hashlib
import io
import pathlib
import re
import sys
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples" / "demo"))

import wsgi_app  # noqa: E402

BOUNDARY = "----7d1b"
# Data that looks like the beginning of a delimiter, in every way.
TRICKY = b"\r\n--\r\n----\r\n------7d1\r\n------7d1\r\n" + bytes(range(256)) + b"\r"


def call(method="GET", path="/", body=b"", **extra):
    """Status, headers and body of one request."""
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": ""}
    environ.update({"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)), "wsgi.file_wrapper": FileWrapper})
    environ.update(extra)
    setup_testing_defaults(environ)
    answer = []
    result = validator(wsgi_app.application)(
        environ, lambda status, headers, exc_info=None: answer.extend([status, headers])
    )
    try:
        content = b"".join(result)
    finally:
        result.close()
    return answer[0], dict(answer[1]), content.decode()


def form(*parts):
    """A multipart/form-data body."""
    lines = []
    for head, data in parts:
        lines += [b"--" + BOUNDARY.encode(), *head, b"", data]
    return b"\r\n".join([*lines, b"--" + BOUNDARY.encode() + b"--", b"an epilogue"])


def file_part(name, data):
    return [
        f'Content-Disposition: form-data; name="file"; filename="{name}"'.encode(),
        b"Content-Type: text/plain",
    ], data


def test_front_page_shows_its_request_escaped_and_without_secrets():
    status, headers, text = call(
        HTTP_X_BAD="<script>", HTTP_COOKIE="sessionid=secret", **{"hoopsnake.reactor": "epoll"}
    )
    assert status == "200 OK"
    assert int(headers["Content-Length"]) == len(text.encode())
    assert "&lt;script&gt;" in text and "<script>" not in text
    assert "HTTP_COOKIE" in text and "secret" not in text
    assert "<dt>Reactor</dt><dd>epoll</dd>" in text
    assert "<dt>Worker thread</dt><dd>MainThread</dd>" in text


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/nowhere", "404 Not Found"),
        ("GET", "/upload", "405 Method Not Allowed"),
        ("POST", "/", "405 Method Not Allowed"),
    ],
)
def test_wrong_path_or_method(method, path, expected):
    assert call(method, path)[0] == expected


def test_stream_is_one_item_per_number(monkeypatch):
    monkeypatch.setattr(wsgi_app, "STREAM_PAUSE_S", 0)
    items = list(wsgi_app.numbers())
    assert len(items) == wsgi_app.STREAM_NUMBERS + 2
    assert call(path="/stream")[0] == "200 OK"


def test_download_is_the_file():
    status, headers, text = call(path="/download")
    assert status == "200 OK"
    assert text == pathlib.Path(wsgi_app.__file__).read_text()
    assert int(headers["Content-Length"]) == len(text.encode())


def test_slow_page(monkeypatch):
    monkeypatch.setattr(wsgi_app, "SLOW_PAUSE_S", 0)
    assert call(path="/slow")[0] == "200 OK"


def test_cached_page_says_for_how_long():
    status, headers, text = call(path="/cached", HTTP_HOST="<b>")
    assert status == "200 OK"
    assert headers["Cache-Control"] == f"s-maxage={wsgi_app.CACHED_S}"
    assert "http://&lt;b&gt;/cached" in text


def test_waiting_page_is_parked_once():
    server = {"hoopsnake.version": "1"}
    status, headers, text = call(path="/wait", **server)
    assert (status, headers["X-WSGo-Park"], text) == ("200 OK", "bell", "")
    assert "rung at &lt;now&gt;" in call(path="/wait", HTTP_X_WSGO_PARK_ARG="<now>", **server)[2]
    assert "Nobody has rung" in call(path="/wait", HTTP_X_WSGO_PARK_ARG="", **server)[2]
    assert "X-WSGo-Park" not in call(path="/wait")[1]
    assert call("POST", "/ring")[0] == "200 OK"


def test_timer_is_shown():
    before = wsgi_app.ticked[0]
    wsgi_app.tick()
    assert f"has run {before + 1} times" in call()[2]


@pytest.mark.parametrize("terminated", [False, True])
@pytest.mark.parametrize("block_bytes", [*range(1, 70), 64 * 1024])
def test_upload_in_blocks_of_any_size(monkeypatch, block_bytes, terminated):
    monkeypatch.setattr(wsgi_app, "BLOCK_BYTES", block_bytes)
    body = b"a preamble\r\n" + form(
        ([b'Content-Disposition: form-data; name="other"'], b"no file"),
        file_part("tricky é %22.txt", TRICKY),
        file_part("empty", b""),
        file_part("", b""),
    )
    extra = {"CONTENT_TYPE": f"multipart/form-data; boundary={BOUNDARY}", "wsgi.input_terminated": terminated}
    status, _, text = call("POST", "/upload", body, **extra)
    assert status == "200 OK"
    shown = re.findall(
        r"<dt>Name</dt><dd>(.*?)</dd><dt>Size</dt><dd>(\d+) bytes</dd><dt>SHA-256</dt><dd>(\w+)</dd>", text
    )
    assert shown == [
        ("tricky é %22.txt", str(len(TRICKY)), hashlib.sha256(TRICKY).hexdigest()),
        ("empty", "0", hashlib.sha256(b"").hexdigest()),
    ]


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        ("text/plain", b"x", "multipart/form-data with a boundary"),
        ("multipart/form-data", b"x", "multipart/form-data with a boundary"),
        (f"multipart/form-data; boundary={BOUNDARY}", b"", "ends before its last boundary"),
        (f"multipart/form-data; boundary={BOUNDARY}", form(file_part("cut", b"data"))[:-20], "ends before its last"),
        (f"multipart/form-data; boundary={BOUNDARY}", b"------7d1bX\r\n\r\n", "text behind a boundary"),
        (f"multipart/form-data; boundary={BOUNDARY}", b"------7d1b\r\n" + b"X" * 100_000, "part is too long"),
        (f"multipart/form-data; boundary={BOUNDARY}", form(file_part("", b"")), "No file was chosen"),
    ],
)
def test_bad_uploads_are_told(content_type, body, says):
    status, _, text = call("POST", "/upload", body, CONTENT_TYPE=content_type)
    assert status == "400 Bad Request"
    assert says in text
