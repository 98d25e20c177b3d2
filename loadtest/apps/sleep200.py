"""Sleeps 200 ms, as a view that waits for a database or another service does."""

import time

from content_length import headers

BODY = [b"slept"]
HEADERS = headers("text/plain", 5)


def application(environ, start_response):
    """Hold the thread (not the GIL) for 200 ms."""
    time.sleep(0.2)
    start_response("200 OK", HEADERS)
    return BODY
