"""An application that forks in the midst of its work, as `multiprocessing` and old libraries do, and doesn't always
keep its children from coming back. Each answer says how the child has ended."""

import multiprocessing
import os
import sys
import time
from wsgiref.validate import validator

import hoopsnake

CHILD_SECONDS_MAX = 10


def ending(pid):
    """How the child has ended, as `os.waitstatus_to_exitcode` has it."""
    until = time.monotonic() + CHILD_SECONDS_MAX
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "never"


def returns():
    pid = os.fork()
    return ending(pid) if pid else "child"


def raises():
    pid = os.fork()
    if not pid:
        raise ValueError("in the child")
    return ending(pid)


def exits():
    pid = os.fork()
    if not pid:
        sys.exit(7)
    return ending(pid)


def exits_with_words():
    pid = os.fork()
    if not pid:
        sys.exit("words of the child")
    return ending(pid)


def terminated():
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
    process.start()
    process.terminate()
    return ending(process.pid)


def square(number):
    return number * number


def pool():
    with multiprocessing.get_context("fork").Pool(2) as processes:
        return processes.map(square, range(5))


ROUTES = {
    "/returns": returns,
    "/raises": raises,
    "/exits": exits,
    "/exits-with-words": exits_with_words,
    "/terminated": terminated,
    "/pool": pool,
    "/": lambda: "served",
}


class Closing:
    def __init__(self, path):
        self.path = path

    def __iter__(self):
        yield b"body"

    def close(self):
        log(self.path, returns())


def log(path, value):
    if value != "child":
        with open(path, "a") as file:
            file.write(f"{value}\n")


def generator():
    yield b"first "
    pid = os.fork()
    if pid:
        yield str(ending(pid)).encode()


@validator
def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path in ("/generator", "/close"):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return generator() if path == "/generator" else Closing(environ["QUERY_STRING"])
    body = str(ROUTES[path]()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


if "FORKS_LOG" in os.environ:

    @hoopsnake.timer(1)
    def job():
        log(os.environ["FORKS_LOG"], returns())
