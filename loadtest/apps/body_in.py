"""Reads a request body to its end, 64 KiB at a time, and answers how many bytes came."""

from content_length import headers

CHUNK_BYTES = 64 * 1024


def application(environ, start_response):
    """Read exactly CONTENT_LENGTH bytes (PEP 3333: not beyond it), or none where there is no length."""
    left = int(environ.get("CONTENT_LENGTH") or 0)
    received = 0
    stream = environ["wsgi.input"]
    while left > 0:
        chunk = stream.read(min(CHUNK_BYTES, left))
        if not chunk:
            break
        received += len(chunk)
        left -= len(chunk)
    body = b"%d" % received
    start_response("200 OK", headers("text/plain", len(body)))
    return [body]
