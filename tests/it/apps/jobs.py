"""An application with background jobs. Which ones is said by the environment variable JOBS, in Python.

A job writes lines to a log in the folder JOBS_FOLDER, and may wait at a gate there (see gates.py).
What is imported here is for the jobs.
"""

import atexit
import functools  # noqa: F401
import os
import threading
import time  # noqa: F401
from urllib.parse import unquote

from gates import gate

import hoopsnake  # noqa: F401

FOLDER = os.environ["JOBS_FOLDER"]
BUSY = threading.Lock()


def log(line):
    with open(os.path.join(FOLDER, "log"), "a") as file:
        file.write(line + "\n")


def at(name):
    gate(os.path.join(FOLDER, name))


def names(text):
    """The threads with this in their name."""
    return sorted(thread.name for thread in threading.enumerate() if text in thread.name)


def alone(function):
    """Fails when another job runs at the same time."""

    def job():
        if not BUSY.acquire(blocking=False):
            log("two at once")
            return
        try:
            function()
        finally:
            BUSY.release()

    job.__qualname__ = function.__qualname__
    return job


def application(environ, start_response):
    exec(unquote(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/pid":
        return [b"%d" % os.getpid()]
    return [",".join(names("background")).encode()]


atexit.register(lambda: log("atexit ran"))
exec(os.environ["JOBS"])
