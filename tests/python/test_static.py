"""Static files beside nginx's: the same requests to both, answers compared header by header.

Where they differ, a section of RFC 9110 says why.
"""

import contextlib
import http.client
import os
import re

import pytest
from nginx import NGINX, nginx
from serving import APPLICATIONS, CLIENT_S, random_bytes, serving

pytestmark = pytest.mark.skipif(not NGINX, reason="nginx isn't installed (apt-get install nginx-light)")

MODIFIED = 784111777
BEFORE, EXACTLY, AFTER = (f"Sun, 06 Nov 1994 08:49:{second} GMT" for second in (36, 37, 38))
CACHING = "public, max-age=60"
# About the connection and the server, not about the file.
APART = ("date", "server", "connection", "keep-alive")

CONFIGURATION = """
types {{ application/octet-stream bin; application/json json; }}
if_modified_since before;
gzip_static on;
gzip_vary on;
sendfile on;
server {{
    listen 127.0.0.1:{port};
    location / {{ root {site}; add_header Cache-Control "{caching}"; }}
}}
"""


@pytest.fixture(scope="module")
def both(driver, tmp_path_factory):
    """Ports of nginx and of the server, over the same files."""
    folder = tmp_path_factory.mktemp("static")
    site = folder / "site"
    (site / "s").mkdir(parents=True)
    files = {"a.bin": random_bytes(1000), "large.bin": random_bytes(300_000), "empty.bin": b"", "c.json": b'{"a": 1}'}
    files["c.json.gz"] = b"not really gzip, which nobody looks at"
    for name, content in files.items():
        (site / "s" / name).write_bytes(content)
        os.utime(site / "s" / name, (MODIFIED, MODIFIED))
    arguments = ("--static-map", f"/s={site}/s", "--static-header", f"Cache-Control: {CACHING}")
    with serving(driver, "proxied", *arguments, cwd=APPLICATIONS) as server:
        with nginx(folder, CONFIGURATION, told="crit", site=site, caching=CACHING) as port:
            yield port, server.port


def ask(port, path, fields=(), method="GET"):
    """Status, fields, body. `ETAG` in a field stands for this server's tag, `BOUNDARY` for what parts the parts."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CLIENT_S)
    with contextlib.closing(connection):
        connection.request("HEAD", path)
        tag = connection.getresponse().headers["ETag"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CLIENT_S)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in fields:
            connection.putheader(name, value.replace("ETAG", tag))
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
    found = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in APART}
    assert len(found) == len([name for name in answer.headers if name.lower() not in APART]), "no field twice"
    if found.get("etag") == tag:
        found["etag"] = "ETAG"
    boundary = re.search("boundary=([^;]+)", found.get("content-type", ""))
    if boundary:
        body = body.replace(boundary[1].encode(), b"BOUNDARY")
        found["content-type"] = found["content-type"].replace(boundary[1], "BOUNDARY")
        # Their boundaries aren't equally long.
        found["content-length"] = str(int(found["content-length"]) - body.count(b"BOUNDARY") * len(boundary[1]))
    if answer.status >= 400:
        # The page that says so is each server's own.
        body = b""
        for name in ("content-type", "content-length", "cache-control"):
            found.pop(name, None)
    return answer.status, found, body


def conditions():
    for name in ("If-Match", "If-None-Match"):
        for value in ("ETAG", '"x"', "*", '"x", ETAG', 'W/"x"', '"x","y" , ETAG', "W/ETAG"):
            yield [(name, value)]
    for name in ("If-Modified-Since", "If-Unmodified-Since"):
        for value in (BEFORE, EXACTLY, AFTER, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"):
            yield [(name, value)]
    yield [("If-Match", "ETAG"), ("If-None-Match", "ETAG")]
    yield [("If-Match", '"x"'), ("If-None-Match", "ETAG")]
    yield [("If-None-Match", '"x"'), ("If-Modified-Since", EXACTLY)]
    yield [("If-Unmodified-Since", BEFORE), ("If-None-Match", "ETAG")]
    yield [("If-Unmodified-Since", EXACTLY), ("If-Modified-Since", EXACTLY)]
    yield [("If-Match", '"x"'), ("Range", "bytes=0-1")]
    yield [("If-None-Match", "ETAG"), ("Range", "bytes=0-1")]


def ranges():
    for value in (
        "0-0",
        "0-499",
        "500-999",
        "-500",
        "500-",
        "0-",
        "0-5000",
        "-5000",
        "999-",
        "1000-",
        "5000-6000",
        "-0",
    ):
        yield [("Range", f"bytes={value}")]
    for value in ("0-0,500-500", "0-99,300-399,-100", "900-999,0-99", "5000-,0-0", "400000-,500000-"):
        yield [("Range", f"bytes={value}")]
    for value in ("ETAG", '"x"', EXACTLY, BEFORE, AFTER):
        yield [("Range", "bytes=0-1"), ("If-Range", value)]
        yield [("Range", "bytes=5000-"), ("If-Range", value)]
    yield [("Range", "items=0-1")]


def identified(rows):
    return [pytest.param(row, id="; ".join(f"{name}: {value}" for name, value in row)) for row in rows]


@pytest.mark.parametrize("fields", identified([[], *conditions(), *ranges()]))
@pytest.mark.parametrize("path", ["/s/a.bin", "/s/large.bin"])
def test_as_nginx(both, path, fields):
    theirs, ours = (ask(port, path, fields) for port in both)
    assert ours == theirs


@pytest.mark.parametrize("fields", identified([[], *conditions()]))
def test_head_as_nginx(both, fields):
    theirs, ours = (ask(port, "/s/a.bin", fields, "HEAD") for port in both)
    assert ours == theirs


@pytest.mark.parametrize("accepted", ["gzip", "GZIP", "gzip;q=0", "gzip;q=0.5", "br", "deflate, gzip", "identity", ""])
def test_precompressed_as_nginx(both, accepted):
    theirs, ours = (ask(port, "/s/c.json", [("Accept-Encoding", accepted)]) for port in both)
    for status, fields, _ in (theirs, ours):
        assert status == 200
        if "content-encoding" in fields:
            # Both give the compressed form a tag of its own. nginx gives no ranges of it.
            assert fields["etag"] != "ETAG"
            fields["etag"] = "ANOTHER"
            fields.pop("accept-ranges", None)
    assert ours == theirs


# nginx answers these otherwise; the right answer, and the section that says so.
APART_FROM_NGINX = [
    ("RFC 9110 13.1.4: what is no date is ignored", "/s/a.bin", [("If-Unmodified-Since", "yesterday")], 200),
    (
        "RFC 9110 13.1.3: ignored beside If-None-Match",
        "/s/a.bin",
        [("If-None-Match", "ETAG"), ("If-Modified-Since", BEFORE)],
        304,
    ),
    ("RFC 9110 14.1.1: a set with a malformed range is no set", "/s/a.bin", [("Range", "bytes=5-4")], 200),
    ("RFC 9110 14.1.1", "/s/a.bin", [("Range", "bytes=a-b")], 200),
    ("RFC 9110 14.1.1", "/s/a.bin", [("Range", "bytes=0-1,x")], 200),
    ("RFC 9110 15.3.7.2: overlapping ranges may be joined", "/s/a.bin", [("Range", "bytes=0-99,50-149")], 206),
    (
        "RFC 9110 13.2.2: If-Match is looked at first",
        "/s/a.bin",
        [("If-Match", "ETAG"), ("If-Unmodified-Since", BEFORE)],
        200,
    ),
    ("RFC 9110 15.5.17: nothing of an empty file can be had", "/s/empty.bin", [("Range", "bytes=0-")], 416),
]


@pytest.mark.parametrize(("why", "path", "fields", "status"), APART_FROM_NGINX)
def test_apart_from_nginx(both, why, path, fields, status):
    assert ask(both[1], path, fields)[0] == status, why
