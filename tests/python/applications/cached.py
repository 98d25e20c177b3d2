"""Pages for a cache: each says how often it was made, and with which of its cookies."""

import itertools
import json
from urllib.parse import parse_qs
from wsgiref.validate import validator

import hoopsnake

COUNTS = {}


def answer(start_response, text, *fields):
    body = text.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), *fields])
    return [body]


def purge(environ):
    query = parse_qs(environ["QUERY_STRING"])
    if "all" in query:
        return hoopsnake.cache_purge(all=True)
    if "prefix" in query:
        return hoopsnake.cache_purge(prefix=query["prefix"][0])
    return hoopsnake.cache_purge(query["url"][0])


@validator
def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/purge":
        try:
            return answer(start_response, json.dumps(purge(environ)))
        except (TypeError, ValueError) as error:
            return answer(start_response, json.dumps(f"{type(error).__name__}: {error}"))
    number = next(COUNTS.setdefault(path, itertools.count(1)))
    return answer(
        start_response,
        f"{number} {environ.get('HTTP_COOKIE', '')}",
        ("Cache-Control", "max-age=60"),
        ("Vary", "Cookie"),
        ("X-WSGo-Vary-Cookies", "session"),
    )
