"""What is measured: one table of scenarios, each with the servers it makes sense for."""

from dataclasses import dataclass

MIB = 1024 * 1024
PIPELINE_DEPTH = 16
IDLE_CONNECTIONS = 10_000
TRANSFER_BYTES = 500 * 1000 * 1000
# Two clients as a proxy names them, both public: one is measured, the other keeps all workers busy.
# The first asks now and then, and under another name while it is alone: a source's recent requests count against it.
ALONE_SOURCE = "203.0.113.1"
MEASURED_SOURCE = "203.0.113.2"
MEASURED_PACE_MS = 100
GREEDY_SOURCE = "198.51.100.1"
GREEDY_CONNECTIONS = 64

CORE = (
    "hoopsnake-ring",
    "hoopsnake-epoll",
    "fastwsgi",
    "bjoern",
    "granian",
    "gunicorn-gthread",
    "uwsgi-http11",
    "wsgo",
)
ALL = (
    "hoopsnake-ring",
    "hoopsnake-epoll",
    "hoopsnake-tokio-uring",
    "hoopsnake-log",
    "fastwsgi",
    "bjoern",
    "bjoern-chunked",
    "granian",
    "granian-default",
    "gunicorn-sync",
    "gunicorn-gthread",
    "gunicorn-gevent",
    "uwsgi",
    "uwsgi-http11",
    "wsgo",
)
DRIVERS = ("hoopsnake-ring", "hoopsnake-epoll", "hoopsnake-tokio-uring")
WITH_DRIVERS = (*DRIVERS, *CORE[2:])
# Those that can have 1,000 requests in hand at once; fastwsgi, bjoern and sync workers sleep one after the other (5/s).
SLEEPERS = (
    "hoopsnake-ring",
    "hoopsnake-epoll",
    "granian-default",
    "gunicorn-gthread",
    "gunicorn-gevent",
    "uwsgi",
    "wsgo",
)
# Those that keep a connection without a thread for it.
IDLERS = (
    "hoopsnake-ring",
    "hoopsnake-epoll",
    "fastwsgi",
    "bjoern",
    "granian",
    "gunicorn-gthread",
    "gunicorn-gevent",
    "wsgo",
)
STREAMERS = ("hoopsnake-ring", "hoopsnake-epoll", "fastwsgi", "bjoern", "granian", "gunicorn-gthread", "uwsgi", "wsgo")
# bjoern answers the first request of a batch and drops the rest.
PIPELINERS = ("hoopsnake-ring", "hoopsnake-epoll", "fastwsgi", "granian", "gunicorn-gthread", "wsgo")


@dataclass(frozen=True)
class Scenario:
    """One row of the table."""

    name: str
    title: str
    app: str  # module in apps/
    connections: int
    servers: tuple
    modes: tuple = ("pinned",)
    kind: str = "load"  # or "idle", "download", "upload", "beside"
    path: str = "/"
    greedy_path: str = ""  # what the greedy source asks for (kind "beside")
    client: str = "wrk"
    script: str = ""  # in lua/
    body_bytes: int = 0  # of each request (oha)
    threads: int | None = None
    warm_up: float = 1.0
    seconds_least: float = 0.0  # a shorter measurement would be of the start of its connections and threads
    answer_bytes: int | None = None  # the length that a first answer must have
    answer: bytes | None = None
    file_bytes: int = 0  # of the file that `path` names
    base: str = "fastwsgi"  # what ratios are taken against


# Files of these sizes, by name; `static` chooses all of them.
STATIC = {
    "1k": 1024,
    "4k": 4 * 1024,
    "10k": 10 * 1024,
    "16k": 16 * 1024,
    "32k": 32 * 1024,
    "64k": 64 * 1024,
    "128k": 128 * 1024,
    "256k": 256 * 1024,
    "1m": 1000 * 1000,
    "10m": 10 * 1000 * 1000,
    "100m": 100 * 1000 * 1000,
}
# Beyond it a connection each is enough, and the clients' memory counts.
STATIC_MANY_BYTES = 256 * 1024
STATIC_SERVERS = ("hoopsnake-static-ring", "hoopsnake-static-epoll", "nginx", "granian-static", "wsgo-static")


def static_scenario(name, size):
    """A file of `size` bytes, served without the application."""
    connections = 64 if size <= STATIC_MANY_BYTES else 16 if size <= 1000 * 1000 else 4
    return Scenario(
        f"static-{name}",
        f"static file of {size:,} bytes, {connections} connections",
        "hello",
        connections,
        STATIC_SERVERS,
        path=f"/s/{size}.bin",
        answer_bytes=size,
        file_bytes=size,
        base="nginx",
        # What a window cuts off is a file for each connection.
        seconds_least=8.0 if size > 1000 * 1000 else 0.0,
    )


BOTH = ("pinned", "unpinned")
HELLO = b"Hello, World!"

SCENARIOS = [
    Scenario("hello-1", "hello, 1 connection", "hello", 1, WITH_DRIVERS, BOTH, answer=HELLO),
    Scenario("hello-8", "hello, 8 connections", "hello", 8, WITH_DRIVERS, BOTH, answer=HELLO),
    Scenario("hello-64", "hello, 64 connections", "hello", 64, ALL, BOTH, answer=HELLO),
    Scenario("hello-512", "hello, 512 connections", "hello", 512, CORE, answer=HELLO),
    Scenario(
        "pipelined-64",
        f"hello, 64 connections, {PIPELINE_DEPTH} requests in one write",
        "hello",
        64,
        PIPELINERS,
        script="pipeline.lua",
        answer=HELLO,
    ),
    Scenario("json-10k", "JSON of 10 KB, 64 connections", "json10k", 64, CORE),
    Scenario(
        "cache-10k",
        "page of 10 KB from the response cache, 64 connections",
        "page10k",
        64,
        ("hoopsnake-ring", "hoopsnake-cache", "hoopsnake-cache-epoll"),
        answer_bytes=10_000,
        base="hoopsnake-ring",
    ),
    Scenario("body-in", "POST of 1 MiB, 8 connections", "body_in", 8, CORE, client="oha", body_bytes=MIB, answer=b"0"),
    Scenario("body-out", "answer of 1 MiB, 8 connections", "body_out", 8, CORE, answer_bytes=MIB),
    Scenario(
        "flask",
        "Flask hello, 64 connections",
        "flask_hello",
        64,
        (*CORE, "granian-default", "gunicorn-gevent", "uwsgi"),
        answer=HELLO,
    ),
    Scenario(
        "django",
        "Django page, 64 connections",
        "django_page",
        64,
        (*CORE, "granian-default", "gunicorn-gevent", "uwsgi"),
    ),
    Scenario(
        "sleep",
        "sleep 200 ms, 1,000 connections, up to 1,000 threads",
        "sleep200",
        1000,
        SLEEPERS,
        BOTH,
        threads=1000,
        warm_up=3.0,
        seconds_least=4.0,
        answer=b"slept",
        base="granian-default",
    ),
    Scenario(
        "sleep-elastic",
        "sleep 200 ms, 1,000 connections, a pool that grows from 16 to 1,024 threads",
        "sleep200",
        1000,
        ("hoopsnake-elastic", "granian-2x512"),
        BOTH,
        warm_up=3.0,
        seconds_least=10.0,  # what a window cuts off is a fifth of a second
        answer=b"slept",
        base="granian-2x512",
    ),
    Scenario(
        "cpu5",
        "5 ms of CPU, 64 connections, a pool that could grow against fixed ones",
        "cpu5",
        64,
        ("hoopsnake-elastic", "hoopsnake-16-workers", "hoopsnake-4-workers", "hoopsnake-1-worker"),
        warm_up=2.0,
        seconds_least=4.0,
        answer=b"computed",
        base="hoopsnake-16-workers",
    ),
    Scenario(
        "priorities",
        f"hello, 4 connections, beside {GREEDY_CONNECTIONS} of another source with 5 ms of CPU for each request",
        "cpu5",
        4,
        ("hoopsnake-ring", "hoopsnake-no-priority"),
        kind="beside",
        path="/hello",
        greedy_path="/",
        script="source.lua",
        seconds_least=8.0,
        answer=HELLO,
        base="hoopsnake-no-priority",
    ),
    Scenario(
        "idle",
        f"hello, 64 connections beside {IDLE_CONNECTIONS:,} idle ones",
        "hello",
        64,
        IDLERS,
        kind="idle",
        answer=HELLO,
    ),
    Scenario(
        "workers",
        "hello, 64 connections, 16 workers against 1",
        "hello",
        64,
        ("hoopsnake-1-worker", "hoopsnake-16-workers"),
        BOTH,
        answer=HELLO,
        base="hoopsnake-1-worker",
    ),
    Scenario(
        "processes",
        "hello, 64 connections, 2 processes each",
        "hello",
        64,
        ("hoopsnake-2", "fastwsgi-2", "granian-2"),
        ("unpinned",),
        answer=HELLO,
        base="fastwsgi-2",
    ),
    Scenario(
        "download",
        "500 MB streamed to a slow reader",
        "stream",
        1,
        STREAMERS,
        ("unpinned",),
        kind="download",
        answer_bytes=MIB,
    ),
    Scenario("upload", "500 MB uploaded", "body_in", 1, STREAMERS, ("unpinned",), kind="upload", answer=b"0"),
    *(static_scenario(name, size) for name, size in STATIC.items()),
]

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
QUICK = ("hello-8", "hello-64", "flask", "sleep")
QUICK_SERVERS = (
    "hoopsnake-ring",
    "hoopsnake-epoll",
    "hoopsnake-tokio-uring",
    "fastwsgi",
    "bjoern",
    "granian",
    "granian-default",
    "wsgo",
)


def resolve(names):
    """Comma-separated names as scenarios in the table's order; a name may also be the start of several (`hello`)."""
    chosen = set()
    for name in filter(None, (part.strip() for part in names.split(","))):
        found = [name] if name in BY_NAME else [known for known in BY_NAME if known.startswith(name + "-")]
        if not found:
            raise ValueError(f"--only: there is no scenario {name!r}; there are {', '.join(BY_NAME)}.")
        chosen.update(found)
    return [scenario for scenario in SCENARIOS if scenario.name in chosen]
