"""Requests that compute without end beside requests that are answered at once, validated by ``wsgiref.validate``."""

import ctypes
import os
import platform
import struct
import sys
import threading
from pathlib import Path
from wsgiref.validate import validator

# Some minutes: a server that lets nobody else go on must not keep a test for ever.
STEPS_MAX = 5_000_000_000
SEEN = {"begun": 0, "ended": 0, "released": 0}
LOCK = threading.Lock()


def count(what):
    with LOCK:
        SEEN[what] += 1


def compute(environ):
    """Counts its own steps, never letting the GIL go by itself, until `/release` has been called; says how it ended."""
    count("begun")
    steps = 0
    while SEEN["released"] == 0 and steps < STEPS_MAX:
        steps += 1
    count("ended")
    return f"{steps > 0} {SEEN['released']}"


def release(environ):
    """How many computations had begun and ended before this."""
    said = f"{SEEN['begun']} begun, {SEEN['ended']} ended"
    count("released")
    return said


def begun(environ):
    return str(SEEN["begun"])


def interval(environ):
    """The switch interval in microseconds, as set by `/interval?MICROSECONDS` or as it is."""
    if environ["QUERY_STRING"]:
        sys.setswitchinterval(int(environ["QUERY_STRING"]) / 1e6)
    return f"{sys.getswitchinterval() * 1e6:.0f}"


def slice_of(thread):
    """A thread's time slice in microseconds (sched_getattr(2)); 0 on a kernel that has none to tell, before 6.12."""
    attributes = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}.get(platform.machine(), -1)
    ctypes.CDLL(None).syscall(number, thread, attributes, len(attributes), 0)
    return struct.unpack_from("Q", attributes, 24)[0] // 1000


def slices(environ):
    """Those of the first thread, of the reactor's, and of this one."""
    threads = [int(name) for name in os.listdir("/proc/self/task")]
    named = {Path(f"/proc/self/task/{thread}/comm").read_text().strip(): thread for thread in threads}
    reactor = next(thread for name, thread in named.items() if name.startswith("hoopsnake-react"))
    return " ".join(str(slice_of(thread)) for thread in (os.getpid(), reactor, threading.get_native_id()))


ROUTES = {"/slices": slices, "/compute": compute, "/release": release, "/begun": begun, "/interval": interval}


@validator
def application(environ, start_response):
    body = ROUTES[environ["PATH_INFO"]](environ).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
