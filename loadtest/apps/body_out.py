"""A response body of 1 MiB, one `bytes` object."""

from content_length import headers

BODY = [b"x" * (1024 * 1024)]
HEADERS = headers("application/octet-stream", 1024 * 1024)


def application(environ, start_response):
    """Answer every request alike."""
    start_response("200 OK", HEADERS)
    return BODY
