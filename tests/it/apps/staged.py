"""An application for the tests of processes: what its module does when it is imported is what the file named by STAGE
says, and it can end its own process in several ways."""

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
from wsgiref.validate import validator

from gates import gate

STAGE = os.environ.get("STAGE", "")
scene = {"version": "none"}
if STAGE:
    with open(STAGE) as stage:
        exec(compile(stage.read(), STAGE, "exec"), scene)


def through_gate(environ):
    gate(environ["QUERY_STRING"])
    return "through"


def hold_the_interpreter(seconds=1000):
    # A C function that doesn't let go of the interpreter: no Python thread runs until it is back.
    ctypes.PyDLL(None).sleep(seconds)


def hold_later(_):
    # On a thread that serves no request, when this one has been answered.
    threading.Timer(0.5, hold_the_interpreter).start()
    return "soon"


def orphan(_):
    # A process whose parent ends before it does; its number.
    command = ["sh", "-c", "sleep 0.2 >/dev/null 2>&1 & echo $!"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


ROUTES = {
    "/": lambda _: "served",
    "/pid": lambda _: str(os.getpid()),
    "/version": lambda _: scene["version"],
    "/frozen": lambda _: str(gc.get_freeze_count()),
    "/multiprocess": lambda environ: str(environ["wsgi.multiprocess"]),
    "/gate": through_gate,
    "/signal": lambda environ: signal.raise_signal(getattr(signal, environ["QUERY_STRING"])),
    "/exit": lambda environ: os._exit(int(environ["QUERY_STRING"])),
    "/hold": lambda environ: str(hold_the_interpreter(int(environ["QUERY_STRING"]))),
    "/hold-later": hold_later,
    "/orphan": orphan,
    "/exists": lambda environ: str(os.path.exists("/proc/" + environ["QUERY_STRING"])),
}


@validator
def application(environ, start_response):
    body = str(ROUTES[environ["PATH_INFO"]](environ)).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    sys.stdout.flush()
    return [body]
