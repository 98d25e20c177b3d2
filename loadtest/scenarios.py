"""What is measured: one table of scenarios, each with the servers it makes sense for."""

from dataclasses import dataclass

MIB = 1024 * 1024
PIPELINE_DEPTH = 16
IDLE_CONNECTIONS = 10_000
TRANSFER_BYTES = 500 * 1000 * 1000

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
    kind: str = "load"  # or "idle", "download", "upload"
    path: str = "/"
    client: str = "wrk"
    script: str = ""  # in lua/
    body_bytes: int = 0  # of each request (oha)
    threads: int | None = None
    warm_up: float = 1.0
    seconds_least: float = 0.0  # a shorter measurement would be of the start of its connections and threads
    answer_bytes: int | None = None  # the length that a first answer must have
    answer: bytes | None = None
    base: str = "fastwsgi"  # what ratios are taken against


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
