"""Handlers that wait, that compute, and that do both; and what the pool looks like meanwhile."""

import threading
import time
from wsgiref.validate import validator


def compute(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def workers():
    return sum(thread.name.startswith("hoopsnake-worker-") for thread in threading.enumerate())


HANDLERS = {
    "/sleeping": lambda: time.sleep(0.2),
    "/computing": lambda: compute(0.02),
    "/mixed": lambda: (compute(0.01), time.sleep(0.09)),
    "/": lambda: None,
}


@validator
def application(environ, start_response):
    HANDLERS[environ["PATH_INFO"]]()
    body = b"%d" % (environ["wsgi.multithread"] if environ["QUERY_STRING"] == "threads" else workers())
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
