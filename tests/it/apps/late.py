"""Applications that take too long, each in its own way, and those that notice."""

import ctypes
import logging
import os
import sys
import threading
import time
from wsgiref.validate import validator

from hoopsnake import RequestTimeoutException

FOREVER_S = 1000
BODY = b"in time\n"


def log(path, line):
    with open(path, "a") as file:
        file.write(line + "\n")


def text(start_response, body, status="200 OK"):
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def hello(environ, start_response):
    return text(start_response, BODY)


def workers(environ, start_response):
    """How many worker threads there are."""
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("hoopsnake-worker")]
    return text(start_response, f"{len(names)}\n".encode())


def loop(environ, start_response):
    """Python code: the exception reaches it at once."""
    while True:
        pass


def in_body(environ, start_response):
    """The same after the head and a block are out."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"first"
    while True:
        pass


def trickles(environ, start_response):
    """Takes longer in all than the limit, but never without a sign of life."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    for digit in b"0123456":
        time.sleep(0.1)
        yield bytes([digit])


def endless(environ, start_response):
    """More than any client takes."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    while True:
        yield bytes(100_000)


def in_close(environ, start_response):
    """The same after the response is out."""

    class Body:
        def __iter__(self):
            return iter([BODY])

        def close(self):
            while True:
                pass

    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return Body()


def catches(environ, start_response):
    """Catches the exception and answers."""
    try:
        while True:
            pass
    except RequestTimeoutException:
        return text(start_response, b"caught\n", "503 Service Unavailable")


def swallows(environ, start_response):
    """Python code that lets no exception through."""
    until = time.monotonic() + FOREVER_S
    while time.monotonic() < until:
        try:
            while time.monotonic() < until:
                time.sleep(0.001)
        except Exception:
            log(environ["QUERY_STRING"], "swallowed")
    return text(start_response, BODY)


def sleep(environ, start_response):
    """A call into C without the GIL, which no exception reaches."""
    time.sleep(FOREVER_S)
    return text(start_response, BODY)


def sleep_a_while(environ, start_response):
    """The same, but it comes back."""
    time.sleep(float(environ["QUERY_STRING"]))
    return text(start_response, BODY)


def keeps_the_gil(environ, start_response):
    """A call into C that keeps the GIL."""
    ctypes.PyDLL(None).sleep(FOREVER_S)
    return text(start_response, BODY)


def logs_slowly(environ, start_response):
    """Is interrupted while it holds the locks of `logging`, taken as no `with` would."""
    handler = logging.lastResort
    logging._lock.acquire()
    handler.acquire()
    handler.acquire()
    while True:
        pass


def logs(environ, start_response):
    """Needs these locks, and takes them on another thread so that they aren't its own."""
    done = []

    def work():
        with logging._lock:
            with logging.lastResort.lock:
                done.append(True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(5)
    return text(start_response, b"free\n" if done else b"taken\n")


def storm(environ, start_response):
    """Ends about when its time is over: `limit,share`, limit in seconds. What it sees is its own or a mistake."""
    begun = time.monotonic()
    limit, share = (float(value) for value in environ["QUERY_STRING"].split(","))
    said = b"ended\n"
    try:
        until = begun + limit * share
        while time.monotonic() < until:
            # Lets the GIL go, so that whoever interrupts can do so at any moment.
            time.sleep(0)
    except RequestTimeoutException:
        said = b"interrupted\n"
        # By the server's own clock of this request, which began before this function did.
        if time.monotonic() < environ["hoopsnake.deadline"] - 0.001:
            print("an exception of another request", file=sys.stderr, flush=True)
            said = b"another's\n"
    return text(start_response, said)


def pid(environ, start_response):
    return text(start_response, f"{os.getpid()}\n".encode())


ROUTES = {
    "/" + name.replace("_", "-"): function
    for name, function in list(globals().items())
    if callable(function) and getattr(function, "__module__", "") == __name__ and name not in ("log", "text")
}
ROUTES["/"] = hello


@validator
def application(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)
