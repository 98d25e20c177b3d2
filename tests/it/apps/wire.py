"""The application that the tests on the wire talk to: one route for each thing an application can do.

Routes made with ``@validated`` are wrapped in ``wsgiref.validate.validator``. Those made with ``@bare`` are not, since
what they are about is what the validator hides (the length of a list, the type of a file wrapper, ``read()`` without an
argument) or forbids.

The tests speak to a running request through files, so that no worker is needed for it: a *gate* is a path that doesn't
exist yet, and a *log* is a file that lines are appended to. Both come as the query string.
"""

import atexit
import gc
import gzip
import io
import os
import sys
import threading
import time
import weakref
from urllib.parse import parse_qs
from wsgiref.util import request_uri
from wsgiref.validate import validator

from gates import GATE_SECONDS_MAX, gate

import hoopsnake

ROUTES = {}


def bare(path):
    def add(function):
        ROUTES[path] = function
        return function

    return add


def validated(path):
    def add(function):
        ROUTES[path] = validator(function)
        return function

    return add


def application(environ, start_response):
    if environ["REQUEST_URI"] == "*":
        return asterisk(environ, start_response)
    path = environ["PATH_INFO"]
    if path.startswith("/environ"):
        path = "/environ"
    return ROUTES.get(path, not_found)(environ, start_response)


def log(path, line):
    with open(path, "a") as file:
        file.write(line + "\n")


def text(start_response, body, status="200 OK", fields=()):
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), *fields])
    return [body]


def start(start_response, *fields):
    return start_response("200 OK", [("Content-Type", "text/plain"), *fields])


def block(size, first=0):
    """``size`` bytes that count."""
    cycle = bytes(range(256))
    return (cycle * (size // 256 + 2))[first % 256 :][:size]


# --- For the cache -----------------------------------------------------------------------------------------

RUNS = {}
RUNS_LOCK = threading.Lock()


@validated("/page")
def page(environ, start_response):
    """A page that says how often it was made and for whom. The query says with which fields (``h=Name:+value``), how
    long its body is (``bytes``) and how it begins (``first``), with which status, which gate it waits at, what it
    purges."""
    query = parse_qs(environ["QUERY_STRING"])
    if "bytes" not in query:
        with RUNS_LOCK:
            run = RUNS[environ["QUERY_STRING"]] = RUNS.get(environ["QUERY_STRING"], 0) + 1
    if "gate" in query:
        gate(query["gate"][0])
    if "url" in query:
        purged = hoopsnake.cache_purge(query["url"][0])
    elif "prefix" in query:
        purged = hoopsnake.cache_purge(prefix=query["prefix"][0])
    elif "all" in query:
        purged = hoopsnake.cache_purge(all=True)
    else:
        purged = None
    fields = [tuple(field.split(": ", 1)) for field in query.get("h", [])]
    status = query.get("status", ["200 OK"])[0]
    if environ.get("HTTP_IF_NONE_MATCH") == '"v1"' and "h=ETag" in environ["QUERY_STRING"]:
        start_response("304 Not Modified", [])
        return []
    if purged is not None:
        body = b"purged %d\n" % purged
    elif "pid" in query:
        body = b"%d\n" % os.getpid()
    elif "bytes" in query:
        body = block(int(query["bytes"][0]), int(query.get("first", ["0"])[0]))
    else:
        body = f"run {run} for {environ.get('HTTP_COOKIE', 'nobody')}\n".encode()
    pieces = int(query.get("pieces", ["1"])[0])
    if pieces == 1 and "piece" not in query:
        fields.append(("Content-Length", str(len(body))))
    start_response(status, [("Content-Type", "text/plain"), *fields])
    step = max(1, -(-len(body) // pieces))
    return (body[at : at + step] for at in range(0, len(body), step)) if pieces > 1 else [body]


# --- Plain ---------------------------------------------------------------------------------------------


@validated("/")
def hello(environ, start_response):
    return text(start_response, b"Hello, world!\n")


@validated("/hello-without-length")
def hello_without_length(environ, start_response):
    start(start_response)
    return [b"Hello, ", b"world!\n"]


@validated("/not-found")
def not_found(environ, start_response):
    return text(start_response, b"nothing here\n", "404 Not Found")


@validated("/teapot")
def teapot(environ, start_response):
    return text(start_response, b"short and stout\n", "299 I'm a teapot, really", [("X-Twice", "1"), ("x-twice", "2")])


@validated("/close-please")
def close_please(environ, start_response):
    return text(start_response, b"closing\n", fields=[("Connection", "close")])


def read_all(environ):
    pieces = []
    while True:
        piece = environ["wsgi.input"].read(65536)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


@validated("/echo")
def echo(environ, start_response):
    return text(start_response, read_all(environ))


@validated("/ignore")
def ignore(environ, start_response):
    return text(start_response, b"ignored\n")


@validated("/record")
def record(environ, start_response):
    """Reads the body, and logs how long it was: what is in the log was complete in the application's eyes."""
    body = read_all(environ)
    log(environ["QUERY_STRING"], f"{environ['REQUEST_METHOD']} {len(body)}")
    return text(start_response, b"recorded\n")


@validated("/environ")
def show_environ(environ, start_response):
    lines = []
    for key, value in sorted(environ.items()):
        if isinstance(value, (str, bool, tuple, int)):
            lines.append(f"{key}={ascii(value)}\n")
    lines.append(f"request_uri={ascii(request_uri(environ))}\n")
    lines.append(f"keys={' '.join(sorted(environ))}\n")
    return text(start_response, "".join(lines).encode("ascii"))


@validated("/mutate")
def mutate(environ, start_response):
    environ["leak"] = "leaked"
    environ["wsgi.url_scheme"] = "gopher"
    del environ["PATH_INFO"]
    environ.pop("HTTP_HOST", None)
    return text(start_response, b"mutated\n")


@bare("*")  # PATH_INFO may not be "/…", which the validator insists on.
def asterisk(environ, start_response):
    return text(start_response, f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}\n".encode())


@validated("/gate")
def gated(environ, start_response):
    gate(environ["QUERY_STRING"])
    return text(start_response, b"through\n")


@validated("/stubborn")
def stubborn(environ, start_response):
    """Passes the gate come what may, and notes in ``….passed`` that it did."""
    path = environ["QUERY_STRING"]
    while True:
        try:
            gate(path)
            break
        except TimeoutError:
            raise
        except Exception as error:
            log(path + ".interrupted", type(error).__name__)
    log(path + ".passed", "passed")
    return text(start_response, b"passed\n")


@validated("/large")
def large(environ, start_response):
    return text(start_response, block(int(environ["QUERY_STRING"])))


@bare("/large-list")  # The validator would make a list into something that may go on.
def large_list(environ, start_response):
    start(start_response)
    return [block(int(environ["QUERY_STRING"]))]


@validated("/progress")
def progress(environ, start_response):
    """Blocks that count, and a file that says how many of them were asked for."""
    count, size, path = environ["QUERY_STRING"].split(",")
    piece = block(int(size))
    start(start_response)

    def body():
        for number in range(int(count)):
            log(path, str(number))
            yield piece

    return body()


@validated("/chunks")
def chunks(environ, start_response):
    count, size = map(int, environ["QUERY_STRING"].split(","))
    start(start_response)
    piece = block(size)
    return (piece for _ in range(count))


@validated("/stream")
def stream(environ, start_response):
    start(start_response)

    def body():
        yield b"first"
        gate(environ["QUERY_STRING"])
        yield b"second"

    return body()


class Endless:
    """Goes on until it is closed; logs that it began and that it was closed."""

    def __init__(self, path):
        self.path = path

    def __iter__(self):
        return self

    def __next__(self):
        return b"x" * 65536

    def close(self):
        log(self.path, "closed")


@validated("/endless")
def endless(environ, start_response):
    start(start_response)
    return Endless(environ["QUERY_STRING"])


@validated("/disconnected")
def disconnected(environ, start_response):
    """Waits until the client is gone, and logs that it noticed."""
    path = environ["QUERY_STRING"]
    log(path, "running")
    until = time.monotonic() + GATE_SECONDS_MAX
    while not environ["hoopsnake.client_disconnected"]():
        if time.monotonic() > until:
            raise TimeoutError("the client is still there")
        # An application can only ask.
        time.sleep(0.005)
    log(path, "gone")
    return text(start_response, b"gone\n")


@validated("/workers")
def workers(environ, start_response):
    names = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("hoopsnake-worker"))
    return text(start_response, f"{len(names)} {threading.current_thread().name in names}\n".encode())


@validated("/at-exit")
def at_exit(environ, start_response):
    atexit.register(print, "atexit ran", flush=True)
    return text(start_response, b"registered\n")


# --- start_response, write, iterables --------------------------------------------------------------------


@validated("/write")
def write(environ, start_response):
    write = start(start_response)
    write(b"one, ")
    write(b"two, ")
    return [b"three"]


@validated("/write-gate")
def write_gate(environ, start_response):
    write = start(start_response)
    write(b"first")
    gate(environ["QUERY_STRING"])
    write(b"second")
    return []


@validated("/lazy")
def lazy(environ, start_response):
    start(start_response)
    yield b"started "
    yield b"late"


@validated("/204")
def no_content(environ, start_response):
    start_response("204 No Content", [])
    return []


@validated("/304")
def not_modified(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"x"')])
    return []


@validated("/exc-info-before")
def exc_info_before(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Old", "old")])
    try:
        raise ValueError("before output")
    except ValueError:
        start_response("503 Replaced", [("Content-Type", "text/plain"), ("X-New", "new")], sys.exc_info())
    return [b"replaced"]


@validated("/exc-info-after")
def exc_info_after(environ, start_response):
    path = environ["QUERY_STRING"]
    start(start_response)

    def body():
        yield b"some output"
        original = ValueError("after output")
        try:
            raise original
        except ValueError:
            try:
                start_response("500 Too Late", [("Content-Type", "text/plain")], sys.exc_info())
            except BaseException as raised:
                log(path, f"same {raised is original}")
                raise

    return body()


class Tracked(Exception):
    @staticmethod
    def reference():
        """Replaced by a weak reference to the last one that was raised."""
        return None


@validated("/exc-info-tracked")
def exc_info_tracked(environ, start_response):
    try:
        raise Tracked()
    except Tracked as error:
        Tracked.reference = weakref.ref(error)
        start_response("500 Tracked", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"tracked"]


@validated("/exc-info-forgotten")
def exc_info_forgotten(environ, start_response):
    gc.collect()
    return text(start_response, f"{Tracked.reference() is None}\n".encode())


@bare("/list")  # The validator hides the length.
def plain_list(environ, start_response):
    start(start_response)
    return [b"a", b"", b"bc"]


@bare("/list-of-one")
def list_of_one(environ, start_response):
    start(start_response)
    return [b"abc"]


@bare("/tuple")
def plain_tuple(environ, start_response):
    start(start_response)
    return (b"a", b"bc")


@bare("/empty-list")
def empty_list(environ, start_response):
    start(start_response)
    return []


@bare("/empty-generator")
def empty_generator(environ, start_response):
    start(start_response)
    return iter(())


@bare("/generator")
def generator(environ, start_response):
    start(start_response)
    return (piece for piece in (b"a", b"", b"bc"))


@bare("/generator-with-length")
def generator_with_length(environ, start_response):
    start(start_response, ("content-length", "3"))
    return (piece for piece in (b"a", b"bc"))


@bare("/list-and-write")
def list_and_write(environ, start_response):
    start(start_response)(b"written ")
    return [b"listed"]


@bare("/length-raises")
def length_raises(environ, start_response):
    class Odd(list):
        def __len__(self):
            raise RuntimeError("no length")

    start(start_response)
    return Odd([b"abc"])


@bare("/204-with-body")  # The validator has no objection, but a list's length would be seen through no wrapper.
def no_content_with_body(environ, start_response):
    start_response("204 No Content", [])
    return [b"must not be sent"]


@bare("/304-with-body")
def not_modified_with_body(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"x"')])
    return [b"must not be sent"]


@bare("/all-bytes")
def all_bytes(environ, start_response):
    start(start_response)
    return [bytes(range(256))]


@bare("/nosy")  # The validator would be what is iterated over.
def nosy(environ, start_response):
    seen = set()

    class Watched:
        def __getattribute__(self, name):
            seen.add(name)
            return object.__getattribute__(self, name)

        def __iter__(self):
            yield b"watched"

        def close(self):
            log(environ["QUERY_STRING"], " ".join(sorted(seen - {"close", "__iter__", "__len__"})) or "nothing else")

    start(start_response)
    return Watched()


@bare("/odd-names")
def odd_names(odd, names):
    names("200 OK", [("Content-Type", "text/plain")])
    return [b"positional"]


@bare("/too-long")  # Content-Length and body must differ, which is what this is about.
def too_long(environ, start_response):
    start(start_response, ("Content-Length", "5"))
    path = environ["QUERY_STRING"]

    def body():
        for count in range(1000):
            log(path, f"pulled {count}")
            yield b"123"

    return body()


@bare("/too-long-list")
def too_long_list(environ, start_response):
    start(start_response, ("Content-Length", "5"))
    return [b"123", b"45678", b"9"]


@bare("/too-short")
def too_short(environ, start_response):
    start(start_response, ("Content-Length", "10"))
    return [b"12345"]


@bare("/too-short-generator")
def too_short_generator(environ, start_response):
    start(start_response, ("Content-Length", "10"))
    return iter([b"123", b"45"])


@bare("/write-too-long")
def write_too_long(environ, start_response):
    write = start(start_response, ("Content-Length", "3"))
    try:
        write(b"0123456789")
    except Exception as error:
        log(environ["QUERY_STRING"], "raised")
        raise error
    log(environ["QUERY_STRING"], "not raised")
    return []


# --- Breaking the rules -----------------------------------------------------------------------------------

GOOD = [("Content-Type", "text/plain")]
BAD_STARTS = {
    "status-int": (200, GOOD),
    "status-bytes": (b"200 OK", GOOD),
    "status-none": (None, GOOD),
    "status-without-reason": ("200", GOOD),
    "status-space-behind": ("200 OK ", GOOD),
    "status-word": ("abc OK", GOOD),
    "status-short": ("99 Too short", GOOD),
    "status-long": ("1000 Too long", GOOD),
    "status-interim": ("100 Continue", GOOD),
    "status-crlf": ("200 OK\r\nX-Injected: yes", GOOD),
    "status-lf": ("200 OK\nX-Injected: yes", GOOD),
    "status-nul": ("200 O\0K", GOOD),
    "status-wide": ("200 \N{EURO SIGN}", GOOD),
    "fields-tuple": ("200 OK", tuple(GOOD)),
    "fields-dict": ("200 OK", dict(GOOD)),
    "fields-none": ("200 OK", None),
    "fields-iterator": ("200 OK", iter(GOOD)),
    "field-list": ("200 OK", [["Content-Type", "text/plain"]]),
    "field-string": ("200 OK", ["ab"]),
    "field-triple": ("200 OK", [("X-A", "b", "c")]),
    "field-none": ("200 OK", [None]),
    "name-bytes": ("200 OK", [(b"X-A", "b")]),
    "name-empty": ("200 OK", [("", "b")]),
    "name-colon": ("200 OK", [("X-A:", "b")]),
    "name-space": ("200 OK", [("X A", "b")]),
    "name-crlf": ("200 OK", [("X-A: b\r\nX-Injected", "yes")]),
    "name-wide": ("200 OK", [("X-\N{EURO SIGN}", "b")]),
    "value-bytes": ("200 OK", [("X-A", b"b")]),
    "value-int": ("200 OK", [("Content-Length", 3)]),
    "value-none": ("200 OK", [("X-A", None)]),
    "value-wide": ("200 OK", [("X-A", "\N{EURO SIGN}")]),
    "value-surrogate": ("200 OK", [("X-A", "\udc80")]),
    "value-crlf": ("200 OK", [("X-A", "b\r\nX-Injected: yes")]),
    "value-crlf-body": ("200 OK", [("X-A", "b\r\n\r\nX-Injected: yes")]),
    "value-cr": ("200 OK", [("X-A", "b\rX-Injected: yes")]),
    "value-lf": ("200 OK", [("X-A", "b\nX-Injected: yes")]),
    "value-folded": ("200 OK", [("X-A", "b\r\n X-Injected: yes")]),
    "value-nul": ("200 OK", [("X-A", "b\0c")]),
    "value-delete": ("200 OK", [("X-A", "b\x7fc")]),
    "length-word": ("200 OK", [("Content-Length", "three")]),
    "length-negative": ("200 OK", [("Content-Length", "-3")]),
    "length-twice": ("200 OK", [("Content-Length", "3"), ("content-length", "4")]),
    "hop-connection": ("200 OK", [("Connection", "x-option")]),
    "hop-keep-alive": ("200 OK", [("keep-alive", "timeout=5")]),
    "hop-transfer-encoding": ("200 OK", [("Transfer-Encoding", "chunked")]),
    "hop-upgrade": ("200 OK", [("Upgrade", "x")]),
    "hop-trailer": ("200 OK", [("Trailer", "X-A")]),
    "hop-te": ("200 OK", [("TE", "trailers")]),
}


@bare("/bad-start")
def bad_start(environ, start_response):
    name, path = environ["QUERY_STRING"].split(",")
    try:
        start_response(*BAD_STARTS[name])
    except BaseException as error:
        log(path, f"{name} {type(error).__name__}")
        raise
    log(path, f"{name} accepted")
    return [b"abc"]


@bare("/start-never")
def start_never(environ, start_response):
    return [b"not started"]


@bare("/start-never-empty")
def start_never_empty(environ, start_response):
    return []


@bare("/start-twice")
def start_twice(environ, start_response):
    start(start_response)
    start_response("201 Second", GOOD)
    return [b"twice"]


@bare("/start-twice-caught")
def start_twice_caught(environ, start_response):
    """A second call is fatal to the first as well, or an application's error would pass for an answer."""
    start(start_response)
    try:
        start_response("201 Second", GOOD)
    except BaseException:
        log(environ["QUERY_STRING"], "raised")
    return [b"the first stands"]


@bare("/start-with-bad-exc-info")
def start_with_bad_exc_info(environ, start_response):
    start_response("200 OK", GOOD, "not a tuple")
    return [b"x"]


@bare("/start-with-too-few")
def start_with_too_few(environ, start_response):
    start_response("200 OK")
    return [b"x"]


@bare("/start-with-too-many")
def start_with_too_many(environ, start_response):
    start_response("200 OK", GOOD, None, None)
    return [b"x"]


@bare("/yield-str")
def yield_str(environ, start_response):
    start(start_response)
    yield "text"


@bare("/yield-int")
def yield_int(environ, start_response):
    start(start_response)
    yield 5


@bare("/list-of-str")
def list_of_str(environ, start_response):
    start(start_response)
    return ["text"]


@bare("/write-str")
def write_str(environ, start_response):
    start(start_response)("text")
    return []


@bare("/yield-str-later")
def yield_str_later(environ, start_response):
    start(start_response)
    yield b"bytes first"
    yield "then text"


@bare("/return-none")
def return_none(environ, start_response):
    start(start_response)


@bare("/return-int")
def return_int(environ, start_response):
    start(start_response)
    return 5


@bare("/return-str")
def return_str(environ, start_response):
    start(start_response)
    return "text"


@bare("/raise")
def raises(environ, start_response):
    raise RuntimeError("secret of the application " + environ["QUERY_STRING"])


@bare("/raise-after-start")
def raise_after_start(environ, start_response):
    start(start_response, ("X-Old", "old"))
    raise RuntimeError("secret of the application")


@bare("/raise-in-first")
def raise_in_first(environ, start_response):
    start(start_response, ("X-Old", "old"))
    raise RuntimeError("secret of the application")
    yield b""


@bare("/raise-after-empty")
def raise_after_empty(environ, start_response):
    start(start_response, ("X-Old", "old"))
    yield b""
    raise RuntimeError("secret of the application")


@bare("/raise-after-output")
def raise_after_output(environ, start_response):
    start(start_response)
    yield b"some output"
    raise RuntimeError("secret of the application")


@bare("/raise-after-output-with-length")
def raise_after_output_with_length(environ, start_response):
    start(start_response, ("Content-Length", "100"))
    yield b"some output"
    raise RuntimeError("secret of the application")


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("can't be said")

    __repr__ = __str__


EXCEPTIONS = {
    "SystemExit": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "GeneratorExit": GeneratorExit(),
    "StopIteration": StopIteration(),
    "BaseException": BaseException("base"),
    "MemoryError": MemoryError(),
    "RecursionError": RecursionError(),
    "Unspeakable": Unspeakable(),
}


@bare("/raise-base")
def raise_base(environ, start_response):
    raise EXCEPTIONS[environ["QUERY_STRING"]]


@bare("/raise-base-in-body")
def raise_base_in_body(environ, start_response):
    start(start_response)

    class Body:
        def __iter__(self):
            return self

        def __next__(self):
            raise EXCEPTIONS[environ["QUERY_STRING"]]

    return Body()


@bare("/raise-in-close")
def raise_in_close(environ, start_response):
    class Body(list):
        def close(self):
            raise RuntimeError("in close")

    return Body(text(start_response, b"closed badly"))


class Counted:
    """A body that logs each call of its close()."""

    def __init__(self, path, pieces, fault=None):
        self.path = path
        self.pieces = iter(pieces)
        self.fault = fault

    def __iter__(self):
        return self

    def __next__(self):
        for piece in self.pieces:
            return piece
        if self.fault:
            raise self.fault
        raise StopIteration

    def close(self):
        log(self.path, "closed")


@bare("/close")  # The validator's own wrapper would be closed in its place.
def close(environ, start_response):
    case, path = environ["QUERY_STRING"].split(",")
    if case == "raise-first":
        start(start_response)
        return Counted(path, [], RuntimeError("first"))
    if case == "raise-later":
        start(start_response)
        return Counted(path, [b"abc"], RuntimeError("later"))
    if case == "length-reached":
        start(start_response, ("Content-Length", "3"))
        return Counted(path, [b"abc", b"def", b"ghi"])
    if case == "not-modified":
        start_response("304 Not Modified", [])
        return Counted(path, [b"abc"])
    if case == "never-started":
        return Counted(path, [b"abc"])
    if case == "client-gone":
        start(start_response)
        return Counted(path, [b"x" * 65536] * 10000)
    start(start_response)
    return Counted(path, [b"abc", b"def"])


# --- wsgi.input and wsgi.errors ---------------------------------------------------------------------------


@bare("/input")  # The validator forbids read() without an argument and hides __iter__.
def every_way_to_read(environ, start_response):
    """The ways named in the query, one after the other; answers with what each gave."""
    body = environ["wsgi.input"]
    ways = {
        "read": lambda: body.read(),
        "read-none": lambda: body.read(None),
        "read-minus": lambda: body.read(-1),
        "read-0": lambda: body.read(0),
        "read-4": lambda: body.read(4),
        "readline": lambda: body.readline(),
        "readline-2": lambda: body.readline(2),
        "readline-0": lambda: body.readline(0),
        "readline-none": lambda: body.readline(None),
        "readline-minus": lambda: body.readline(-1),
        "readlines": lambda: body.readlines(),
        "readlines-1": lambda: body.readlines(1),
        "iterate": lambda: list(body),
        "next": lambda: next(iter(body), None),
    }

    def said(value):
        if isinstance(value, bytes) and len(value) > 100:
            return f"{len(value)} {'in order' if value == block(len(value)) else 'not in order'}"
        return ascii(value)

    lines = [f"{way}: {said(ways[way]())}\n" for way in environ["QUERY_STRING"].split(",")]
    return text(start_response, "".join(lines).encode())


@validated("/errors")
def errors(environ, start_response):
    environ["wsgi.errors"].write("plain words\n")
    environ["wsgi.errors"].writelines(["euro \N{EURO SIGN}\n", "snake \N{SNAKE}\n", "half \udc80\n"])
    environ["wsgi.errors"].flush()
    return text(start_response, b"written\n")


# --- Files that the server sends ------------------------------------------------------------------------


def named(field):
    """Names what the query says in ``field``, with fields and a body of its own."""

    def route(environ, start_response):
        fields = [
            ("Content-Type", "x/y"),
            ("Set-Cookie", "a=b"),
            ("Content-Length", "4"),
            (field, environ["QUERY_STRING"]),
        ]
        start_response("200 OK", fields)
        return [b"body"]

    return route


ROUTES["/x-sendfile"] = validator(named("X-Sendfile"))
ROUTES["/x-accel-redirect"] = validator(named("X-Accel-Redirect"))


# --- wsgi.file_wrapper ------------------------------------------------------------------------------------


class ReadOnly:
    """Something to read from that isn't a file."""

    def __init__(self, content):
        self.file = io.BytesIO(content)

    def read(self, size):
        return self.file.read(size)


class Closing(io.FileIO):
    path = ""

    def close(self):
        if not self.closed:
            log(self.path, "closed")
        super().close()


@bare("/file")  # Through the validator the server would never see its own wrapper.
def file(environ, start_response):
    """Wraps the file named in the query, in the way named in the query."""
    way, path = environ["QUERY_STRING"].split(",")
    wrapper = environ["wsgi.file_wrapper"]
    fields = []
    if way.startswith("length-"):
        fields = [("Content-Length", way[len("length-") :])]
    if way == "bytesio":
        wrapped = wrapper(io.BytesIO(open(path, "rb").read()))
    elif way == "bytesio-offset":
        content = io.BytesIO(open(path, "rb").read())
        content.seek(5)
        wrapped = wrapper(content)
    elif way == "read-only":
        wrapped = wrapper(ReadOnly(open(path, "rb").read()), 7)
    elif way == "gzip":
        wrapped = wrapper(gzip.open(path))
    elif way == "buffered":
        content = open(path, "rb")
        content.read(1)
        wrapped = wrapper(content)
    elif way == "text":
        wrapped = wrapper(open(path))
    elif way == "unbuffered":
        content = open(path, "rb", buffering=0)
        content.read(1)
        wrapped = wrapper(content)
    elif way == "offset":
        content = open(path, "rb")
        content.seek(5)
        wrapped = wrapper(content)
    elif way == "beyond":
        content = open(path, "rb")
        content.seek(1 << 40)
        wrapped = wrapper(content)
    elif way == "read-write":
        content = open(path, "r+b")
        content.read(2)
        wrapped = wrapper(content)
    elif way == "closed":
        content = open(path, "rb")
        content.close()
        wrapped = wrapper(content)
    elif way == "pipe":
        reading, writing = os.pipe()
        with os.fdopen(writing, "wb") as end:
            end.write(b"through a pipe")
        wrapped = wrapper(os.fdopen(reading, "rb"))
    elif way == "closing":
        content = Closing(path, "rb")
        content.path = path + ".log"
        wrapped = wrapper(content)
    elif way == "truncated":
        # Shorter by the time it is sent than it was when the length was announced.
        fields = [("Content-Length", str(os.path.getsize(path)))]
        wrapped = wrapper(open(path, "rb"))
        os.truncate(path, 10)
    elif way == "discarded":
        wrapper(open(path, "rb"))
        return text(start_response, b"something else")
    elif way == "wrapped":
        start(start_response)
        return (piece.upper() for piece in wrapper(open(path, "rb"), 4))
    elif way == "iterated":
        start(start_response)
        return [piece for piece in wrapper(open(path, "rb"), 4)]
    elif way == "written":
        start(start_response)(b"written, ")
        return wrapper(open(path, "rb"))
    elif way == "unlinked":
        wrapped = wrapper(open(path, "rb"))
        os.unlink(path)
    elif way == "not-modified":
        start_response("304 Not Modified", [])
        return wrapper(open(path, "rb"))
    else:
        wrapped = wrapper(open(path, "rb"))
    start(start_response, *fields)
    return wrapped
