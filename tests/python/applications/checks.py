"""The application of test_wsgi_server.py, behind wsgiref's validator: one function for each path."""

import atexit
import json
import os
import sys
import threading
import time
import zlib
from wsgiref.validate import validator

BLOCK = bytes(256 * 1024)
BLOCK_BYTES = 1024 * 1024
WAIT_S = 20
GONE_S = 5
PLAIN = [("Content-Type", "text/plain")]

local = threading.local()
gate = threading.Event()
gone = threading.Event()
barriers = {}
barriers_lock = threading.Lock()


def at_exit():
    path = os.environ.get("CHECKS_AT_EXIT")
    if path:
        with open(path, "a") as file:
            file.write(f"{threading.current_thread().name}\n")


atexit.register(at_exit)


def as_json(start_response, value):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(value).encode()]


def process(environ, start_response):
    """What an application sees of its process."""
    return as_json(
        start_response,
        {"argv": sys.argv, "path": sys.path, "cwd": os.getcwd(), "threads": [t.name for t in threading.enumerate()]},
    )


def count(environ, start_response):
    """How many requests this thread has served."""
    local.count = getattr(local, "count", 0) + 1
    thread = threading.current_thread()
    return as_json(start_response, {"count": local.count, "name": thread.name, "ident": thread.ident})


def together(environ, start_response):
    """Answers when as many requests as QUERY_STRING says are here at the same time."""
    parties = int(environ["QUERY_STRING"])
    with barriers_lock:
        barrier = barriers.setdefault(parties, threading.Barrier(parties))
    barrier.wait(WAIT_S)
    return as_json(start_response, {"name": threading.current_thread().name})


def deadline(environ, start_response):
    return as_json(start_response, {"seconds": environ["hoopsnake.deadline"] - time.monotonic()})


def gated(environ, start_response):
    """One item, then nothing until somebody asks for /open."""
    gate.clear()
    start_response("200 OK", list(PLAIN))
    yield b"before"
    assert gate.wait(WAIT_S)
    yield b"after"


def open_gate(environ, start_response):
    gate.set()
    return as_json(start_response, True)


def until_gone(environ, start_response):
    """Runs until its client has gone; what the query string says is sent before."""
    gone.clear()
    start_response("200 OK", list(PLAIN))
    yield environ["QUERY_STRING"].encode()
    end = time.monotonic() + GONE_S
    while not environ["hoopsnake.client_disconnected"]() and time.monotonic() < end:
        # An application can only ask.
        time.sleep(0.01)
    if time.monotonic() < end:
        gone.set()


def was_gone(environ, start_response):
    return as_json(start_response, gone.wait(GONE_S))


def stream(environ, start_response):
    """QUERY_STRING bytes from a generator, without a length, as fast as they are taken."""
    start_response("200 OK", list(PLAIN))
    return (BLOCK for _ in range(int(environ["QUERY_STRING"]) // len(BLOCK)))


def whole(environ, start_response):
    """QUERY_STRING bytes as one item, new each time and written to, so that it is resident."""
    start_response("200 OK", list(PLAIN))
    return [b"x" * int(environ["QUERY_STRING"])]


def upload(environ, start_response):
    """Bytes and CRC-32 of the body."""
    size = checksum = 0
    while True:
        block = environ["wsgi.input"].read(BLOCK_BYTES)
        if not block:
            return as_json(start_response, {"size": size, "crc32": checksum})
        size += len(block)
        checksum = zlib.crc32(block, checksum)


def fail(environ, start_response):
    raise RuntimeError("a failure for the error log")


def fail_late(environ, start_response):
    start_response("200 OK", list(PLAIN))
    yield b"part"
    raise RuntimeError("a late failure for the error log")


def not_found(environ, start_response):
    start_response("404 Not Found", list(PLAIN))
    return [b"no such check"]


ROUTES = {
    "/process": process,
    "/count": count,
    "/together": together,
    "/deadline": deadline,
    "/gated": gated,
    "/open": open_gate,
    "/until-gone": until_gone,
    "/was-gone": was_gone,
    "/stream": stream,
    "/whole": whole,
    "/upload": upload,
    "/fail": fail,
    "/fail-late": fail_late,
}


@validator
def application(environ, start_response):
    return ROUTES.get(environ["PATH_INFO"], not_found)(environ, start_response)
