"""`Hello, World!` with a Content-Type and nothing else: Content-Length, Date and Server are each server's own doing."""

from content_length import headers

BODY = [b"Hello, World!"]
HEADERS = headers("text/plain; charset=utf-8", 13)


def application(environ, start_response):
    """Answer every request alike."""
    start_response("200 OK", HEADERS)
    return BODY
