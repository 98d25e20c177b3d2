"""Computes for 5 ms of its thread's CPU time, never letting the GIL go by itself; `/hello` is answered at once."""

import time

from content_length import headers

CPU_SECONDS = 0.005
COMPUTED = [b"computed"]
HELLO = [b"Hello, World!"]


def application(environ, start_response):
    """Compute, unless it is `/hello`."""
    if environ["PATH_INFO"] == "/hello":
        start_response("200 OK", headers("text/plain", 13))
        return HELLO
    until = time.thread_time() + CPU_SECONDS
    while time.thread_time() < until:
        pass
    start_response("200 OK", headers("text/plain", 8))
    return COMPUTED
