"""The application of test_nginx.py: says what it sees of a request, takes and gives large bodies."""

import hashlib
import io
import json
import tempfile

BLOCK_BYTES = 64 * 1024
NAMES = ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "HTTP_X_FORWARDED_FOR", "HTTP_CONNECTION", "PATH_INFO")


def application(environ, start_response):
    kind = environ["PATH_INFO"].split("/")[1]
    if kind in ("seen", "upload"):
        return take(environ, start_response, kind)
    return give(environ, start_response, kind)


def take(environ, start_response, kind):
    size, digest = 0, hashlib.sha256()
    for block in iter(lambda: environ["wsgi.input"].read(BLOCK_BYTES), b""):
        size += len(block)
        digest.update(block)
    answer = {"size": size, "sha256": digest.hexdigest()}
    if kind == "seen":
        answer = {"size": size, **{name: environ.get(name) for name in NAMES}}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


def give(environ, start_response, kind):
    data = hashlib.shake_128(b"hoopsnake").digest(int(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    if kind == "whole":
        return [data]
    if kind == "stream":
        return iter(io.BytesIO(data).readlines())
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the wrapper's close(), which the server calls
    file.write(data)
    file.seek(0)
    return environ["wsgi.file_wrapper"](file, BLOCK_BYTES)
