"""A generator of 64 KiB pieces; `?bytes=N` says how many bytes in all. Framing is left to the server."""

from urllib.parse import parse_qs

CHUNK = b"s" * (64 * 1024)
BYTES_DEFAULT = 1024 * 1024


def pieces(left):
    """Yield `left` bytes."""
    while left > 0:
        yield CHUNK if left >= len(CHUNK) else CHUNK[:left]
        left -= len(CHUNK)


def application(environ, start_response):
    """Stream as many bytes as the query asks for."""
    query = parse_qs(environ.get("QUERY_STRING", ""))
    count = int(query.get("bytes", [BYTES_DEFAULT])[0])
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return pieces(count)
