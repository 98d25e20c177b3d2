"""10,000 bytes that may be cached for an hour."""

from content_length import headers

BODY = b"<p>made by Python</p>" * 477
BODY = BODY[:10_000]


def application(environ, start_response):
    """Return the page."""
    start_response("200 OK", [*headers("text/html", len(BODY)), ("Cache-Control", "max-age=3600")])
    return [BODY]
