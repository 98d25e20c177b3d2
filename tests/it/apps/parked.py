"""The application that the tests of parking and of priorities talk to, validated by ``wsgiref.validate``.

The query string says what a route is to do; gates and logs are files, as in ``wire``.
"""

import itertools
import os
import threading
import time
from urllib.parse import unquote
from wsgiref.validate import validator

from gates import gate

from hoopsnake import _core


def say(start_response, text, status="200 OK", fields=()):
    body = text.encode()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), *fields])
    return [body]


SEEN = itertools.count()


def park(environ, start_response):
    """Parks on ``channels;timeout``; called again, says with what argument, body and environ."""
    channels, _, timeout = unquote(environ["QUERY_STRING"]).partition(";")
    arg = environ.get("HTTP_X_WSGO_PARK_ARG")
    if arg is None or channels == "always":
        next(SEEN)
        # Only a part of the body is read: a request that is run again has all of it.
        start = environ["wsgi.input"].read(3)
        fields = [("X-WSGo-Park", channels or "-")]
        if timeout:
            fields.append(("X-WSGo-Park-Timeout", timeout))
        return say(start_response, f"parked after {start!r}", "203 Told Anyway", fields)
    body = environ["wsgi.input"].read(100_000_000)
    return say(start_response, f"again: {arg} {len(body)} {sum(body)} {environ.get('HTTP_X_WSGO_PARK')}")


def claims(environ, start_response):
    """What a client can make the application believe of parking."""
    keys = ("HTTP_X_WSGO_PARK", "HTTP_X_WSGO_PARK_ARG")
    return say(start_response, " ".join(str(environ.get(key)) for key in keys))


def notify(environ, start_response):
    """``channels;action;arg``, from another thread."""
    channels, action, arg = unquote(environ["QUERY_STRING"]).split(";")
    thread = threading.Thread(target=_core.notify_parked, args=(channels, int(action), arg))
    thread.start()
    thread.join()
    return say(start_response, "notified")


def notify_and_park(environ, start_response):
    """The notice comes while the request that it is for still runs."""
    if environ.get("HTTP_X_WSGO_PARK_ARG") is not None:
        return say(start_response, "again: " + environ["HTTP_X_WSGO_PARK_ARG"])
    _core.notify_parked("between", 1, "in time")
    return say(start_response, "", "200 OK", [("X-WSGo-Park", "between"), ("X-WSGo-Park-Timeout", "60 http-504")])


def late(environ, start_response):
    """Holds the request until the gate is open, then parks."""
    if environ.get("HTTP_X_WSGO_PARK_ARG") is not None:
        return say(start_response, "again: " + environ["HTTP_X_WSGO_PARK_ARG"])
    gate(environ["QUERY_STRING"])
    return say(start_response, "", "200 OK", [("X-WSGo-Park", "late")])


def seen(environ, start_response):
    """How many requests have come to be parked: from then on no notice is lost to them."""
    return say(start_response, repr(SEEN)[6:-1])


def too_much(environ, start_response):
    return say(start_response, "", "200 OK", [("X-WSGo-Park", ",".join(map(str, range(1000))))])


def hold(environ, start_response):
    gate(environ["QUERY_STRING"])
    return say(start_response, "held")


def pour(environ, start_response):
    """Says that it has come here, and gives more than anybody's buffers hold."""
    open(environ["QUERY_STRING"] + ".arrived", "w").close()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (b"x" * 65536 for _ in range(1000))


def order(environ, start_response):
    """Appends its path to the log that the field names."""
    with open(environ["HTTP_X_LOG"], "a") as file:
        file.write(environ["PATH_INFO"] + "\n")
    return say(start_response, "noted")


def burn(environ, start_response):
    """Uses so many milliseconds of CPU time."""
    until = time.thread_time() + int(environ["QUERY_STRING"]) / 1000
    while time.thread_time() < until:
        pass
    return order(environ, start_response) if "HTTP_X_LOG" in environ else say(start_response, "burnt")


def pid(environ, start_response):
    return say(start_response, str(os.getpid()))


ROUTES = {
    "/park": park,
    "/claims": claims,
    "/notify": notify,
    "/notify-and-park": notify_and_park,
    "/late": late,
    "/too-much": too_much,
    "/hold": hold,
    "/pour": pour,
    "/pid": pid,
    "/seen": seen,
}


def application(environ, start_response):
    path = environ["PATH_INFO"]
    route = ROUTES.get(path, burn if path.startswith("/burn") else order)
    return validator(route)(environ, start_response)
