"""An application written for wsgo, with what wsgo's own tests ask of one: it imports `wsgo`, and no `hoopsnake`."""

import atexit
import hashlib
import itertools
import logging
import threading
import time
from wsgiref.validate import validator

import wsgo

LOCAL = threading.local()
NUMBERS = itertools.count(1)
SLOW_LOG_S = 1.2
closed = 0


class Slow(logging.Handler):
    def emit(self, record):
        if record.getMessage() == "slowly":
            time.sleep(SLOW_LOG_S)


logging.getLogger().addHandler(Slow())


@wsgo.cron(0, 3, -1, -1, -1)
def at_three():
    print("cron ran")


@wsgo.timer(period_seconds=3600)
def every_hour():
    print("timer ran")


class Counted:
    def __init__(self, blocks):
        self.blocks = iter(blocks)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.blocks)

    def close(self):
        global closed
        closed += 1


def plain(start_response, *headers, status="200 OK"):
    start_response(status, [("Content-Type", "text/plain"), *headers])


def digest(environ):
    """The body's digest, read in small blocks."""
    found = hashlib.sha256()
    while True:
        block = environ["wsgi.input"].read(4096)
        if not block:
            return found.hexdigest().encode()
        found.update(block)


def output(start_response):
    """50 MB, on one thread from its first block to its last."""
    plain(start_response)
    LOCAL.name = threading.current_thread().name
    for _ in range(100):
        yield b"hello" * 100_000
        assert LOCAL.name == threading.current_thread().name


def parked(environ, start_response):
    if "HTTP_X_WSGO_PARK_ARG" in environ:
        plain(start_response)
        return [environ["HTTP_X_WSGO_PARK_ARG"].encode("latin-1")]
    print("parking", flush=True)
    plain(start_response, ("X-WSGo-Park", "12345, 12346"), ("X-WSGo-Park-Timeout", "60 http-504"))
    return [b"ignored"]


def interrupted(start_response):
    try:
        while True:
            time.sleep(0.01)
    except wsgo.RequestTimeoutException:
        print("interrupted", flush=True)
        raise


def route(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/output/":
        return output(start_response)
    if path == "/park/park":
        return parked(environ, start_response)
    if path == "/endless/":
        return interrupted(start_response)
    if path == "/wait/":
        time.sleep(1)
    if path == "/slow-log/":
        logging.getLogger().warning("slowly")
    if path == "/log/":
        logging.getLogger().warning("at once")
    if path == "/number/":
        plain(start_response, ("Cache-Control", "max-age=60"), ("Vary", "Cookie"))
        return [b"%d" % next(NUMBERS)]
    if path == "/block/":
        plain(start_response, ("X-WSGo-Block", "2"))
        return [b"blocked"]
    plain(start_response, *(("Set-Cookie", f"cookie{number}=value{number}") for number in (1, 2, 3)))
    if path.startswith("/echo/"):
        return [path.encode("latin-1")]
    if path == "/close/":
        return Counted([b"%d" % closed])
    if path == "/local/":
        LOCAL.count = getattr(LOCAL, "count", 0) + 1
        return [b"%d" % LOCAL.count]
    if path == "/notify/wrong":
        wsgo.notify_parked("555", wsgo.HTTP_504, "")
    if path == "/notify/204":
        wsgo.notify_parked("12345", wsgo.HTTP_204, "")
    if path == "/notify/retry":
        wsgo.notify_parked("12345", wsgo.RETRY, "retry_arg")
    return [digest(environ)]


def at_exit():
    print("atexit was called", flush=True)


atexit.register(at_exit)
application = validator(route)
