"""The servers and how each is started: one table.

Each runs one process with one Python interpreter, has its access log off, and is otherwise as its manual recommends.
What can't be made equal is said in `note`, which the report prints.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

BACKLOG = 4096
THREADS_DEFAULT = 16  # hoopsnake's and wsgo's default
KEEP_ALIVE_SECONDS = 75


@dataclass(frozen=True)
class Launch:
    """What a command line is made from."""

    port: int
    module: str  # its callable is `application`
    venv: Path  # the peers'
    hoopsnake: Path | None
    apps: Path
    packages: Path  # the venv's site-packages, for the servers that aren't started by its Python
    log: Path  # folder
    threads: int | None  # Python threads asked for by the scenario; None: the server's usual number
    connections: int  # open at once
    files: Path  # folder of static files, served under /s

    @property
    def application(self):
        """`module:application`."""
        return f"{self.module}:application"

    @property
    def address(self):
        """`127.0.0.1:port`."""
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Server:
    """One row of the table."""

    name: str
    package: str  # on PyPI; "hoopsnake" is this project's own build
    command: object  # Launch -> list of arguments
    note: str = ""
    gives_length: bool = False  # the application has to give Content-Length (apps/content_length.py)
    discards_stdout: bool = False
    processors: str = ""  # "own": it chooses its processor itself


def hoopsnake(reactor, *, log=False, threads=None, static=False, extra=()):
    """Hoopsnake with a driver, and flags of the scenario's own."""

    def command(launch):
        return [
            str(launch.hoopsnake),
            "--http-socket",
            launch.address,
            "--workers",
            str(threads or launch.threads or THREADS_DEFAULT),
            "--reactor",
            reactor,
            "--access-log",
            str(launch.log / "hoopsnake-access.log") if log else "off",
            *(["--static-map", f"/s={launch.files}"] if static else []),
            "--pythonpath",
            str(launch.apps),
            "--pythonpath",
            str(launch.packages),
            *extra,
            launch.application,
        ]

    return command


def fastwsgi_processes(count):
    """Several processes, which its command line can't ask for."""

    def command(launch):
        program = (
            f"import fastwsgi, {launch.module} as m; "
            f"fastwsgi.run(m.application, '127.0.0.1', {launch.port}, loglevel=0, workers={count})"
        )
        return [str(launch.venv / "bin/python"), "-c", program]

    return command


def fastwsgi(launch):
    """One thread, which never releases the GIL."""
    return [
        str(launch.venv / "bin/fastwsgi"),
        "--host",
        "127.0.0.1",
        "--port",
        str(launch.port),
        "--loglevel",
        "0",
        launch.application,
    ]


def bjoern(launch):
    """It has no command line."""
    program = (
        f"import bjoern, {launch.module} as m; "
        f"bjoern.run(m.application, '127.0.0.1', {launch.port}, listen_backlog={BACKLOG})"
    )
    return [str(launch.venv / "bin/python"), "-c", program]


def granian(threads, workers=1, *, static=False):
    """`workers` processes; `threads` Python threads in each, or as many as it likes."""

    def command(launch):
        asked = launch.threads or threads
        return [
            str(launch.venv / "bin/granian"),
            "--interface",
            "wsgi",
            "--http",
            "1",
            "--host",
            "127.0.0.1",
            "--port",
            str(launch.port),
            "--workers",
            str(workers),
            *(["--blocking-threads", str(asked)] if asked else []),
            *(["--static-path-route", "/s", "--static-path-mount", str(launch.files)] if static else []),
            "--no-ws",
            "--log-level",
            "warning",
            "--backlog",
            str(max(BACKLOG, launch.connections * 2)),
            launch.application,
        ]

    return command


def gunicorn(worker_class):
    """One worker of a class."""

    def command(launch):
        threads = ["--threads", str(launch.threads or THREADS_DEFAULT)] if worker_class == "gthread" else []
        return [
            str(launch.venv / "bin/gunicorn"),
            "--bind",
            launch.address,
            "--workers",
            "1",
            "--worker-class",
            worker_class,
            *threads,
            "--worker-connections",
            str(launch.connections * 2 + 1000),
            "--backlog",
            str(BACKLOG),
            "--timeout",
            "120",
            "--keep-alive",
            str(KEEP_ALIVE_SECONDS),
            "--log-level",
            "warning",
            "--no-control-socket",
            launch.application,
        ]

    return command


def uwsgi(*, keep_alive):
    """No master, one process."""

    def command(launch):
        # A thread of --http11-socket belongs to one connection as long as that is open.
        threads = launch.threads or (max(launch.connections, THREADS_DEFAULT) if keep_alive else THREADS_DEFAULT)
        listen = (
            ["--http11-socket", launch.address]
            if keep_alive
            else ["--http-socket", launch.address, "--add-header", "Connection: close"]
        )
        return [
            str(launch.venv / "bin/uwsgi"),
            *listen,
            "--module",
            launch.application,
            "--threads",
            str(threads),
            "--listen",
            str(min(BACKLOG, somaxconn())),
            "--thread-stacksize",
            "512",
            "--disable-logging",
            "--die-on-term",
            "--need-app",
        ]

    return command


def wsgo(launch):
    """It takes the module only; the callable is always `application`."""
    return wsgo_static(launch)[:-2]


def wsgo_static(launch):
    """The same with a folder of files."""
    return [
        str(launch.venv / "bin/wsgo"),
        "--http-socket",
        launch.address,
        "--module",
        launch.module,
        "--workers",
        str(launch.threads or THREADS_DEFAULT),
        "--static-map",
        f"/s={launch.files}",
    ]


NGINX_CONFIGURATION = """
daemon off;
master_process off;
pid {log}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {log}/nginx-body;
    proxy_temp_path {log}/nginx-proxy;
    fastcgi_temp_path {log}/nginx-fastcgi;
    uwsgi_temp_path {log}/nginx-uwsgi;
    scgi_temp_path {log}/nginx-scgi;
    types {{ application/octet-stream bin; }}
    sendfile on;
    tcp_nopush on;
    open_file_cache max=1000;
    keepalive_requests 1000000000;
    server {{
        listen {address} backlog={backlog};
        location / {{ root {files}; expires 1d; }}
    }}
}}
"""


def nginx(launch):
    """The rival for static files: one process, as its manual says for speed."""
    folder = Path(launch.log).absolute()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        NGINX_CONFIGURATION.format(log=folder, address=launch.address, backlog=BACKLOG, files=launch.files.parent)
    )
    return [nginx_path(), "-p", str(folder), "-c", str(configuration)]


def nginx_path():
    """Where nginx is; None if it isn't installed."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def somaxconn():
    """The kernel's limit for a listen queue; uWSGI refuses to start beyond it."""
    return int(Path("/proc/sys/net/core/somaxconn").read_text())


SERVERS = [
    Server("hoopsnake-ring", "hoopsnake", hoopsnake("ring")),
    Server("hoopsnake-epoll", "hoopsnake", hoopsnake("epoll")),
    Server("hoopsnake-tokio-uring", "hoopsnake", hoopsnake("tokio-uring")),
    Server(
        "hoopsnake-log",
        "hoopsnake",
        hoopsnake("ring", log=True),
        note="as hoopsnake-ring, with the access log written to a file",
    ),
    Server(
        "hoopsnake-cache",
        "hoopsnake",
        hoopsnake("ring", extra=("--max-age", "3600")),
        note="as hoopsnake-ring, with the response cache",
    ),
    Server("hoopsnake-cache-epoll", "hoopsnake", hoopsnake("epoll", extra=("--max-age", "3600"))),
    Server("hoopsnake-1-worker", "hoopsnake", hoopsnake("ring", threads=1)),
    Server("hoopsnake-4-workers", "hoopsnake", hoopsnake("ring", threads=4)),
    Server("hoopsnake-16-workers", "hoopsnake", hoopsnake("ring", threads=16)),
    Server(
        "hoopsnake-2",
        "hoopsnake",
        hoopsnake("ring", extra=("--processes", "2")),
        note="--processes 2",
    ),
    Server(
        "hoopsnake-elastic",
        "hoopsnake",
        hoopsnake("ring", threads=16, extra=("--max-workers", "1024")),
        note="--workers 16 --max-workers 1024",
    ),
    Server(
        "hoopsnake-no-priority",
        "hoopsnake",
        hoopsnake("ring", extra=("--priority", "off")),
        note="as hoopsnake-ring, first come, first served",
    ),
    Server("granian-2x512", "granian", granian(512, workers=2), note="2 workers, --blocking-threads 512"),
    Server("fastwsgi-2", "fastwsgi", fastwsgi_processes(2), note="2 processes on one port"),
    Server("granian-2", "granian", granian(1, workers=2), note="2 workers, --blocking-threads 1"),
    Server(
        "fastwsgi",
        "fastwsgi",
        fastwsgi,
        note="one thread that never releases the GIL: background threads of the application stand still",
    ),
    Server(
        "bjoern",
        "bjoern",
        bjoern,
        gives_length=True,
        note="one thread; works out no Content-Length, so the application gives it (else see bjoern-chunked)",
    ),
    Server(
        "bjoern-chunked",
        "bjoern",
        bjoern,
        note="bjoern with the application of the others: its last chunk waits for a delayed ACK",
    ),
    Server("granian", "granian", granian(1), note="1 worker, --blocking-threads 1, as in its own benchmarks"),
    Server("granian-default", "granian", granian(None), note="1 worker, its own number of blocking threads"),
    Server("gunicorn-sync", "gunicorn", gunicorn("sync"), note="closes the connection after each answer"),
    Server("gunicorn-gthread", "gunicorn", gunicorn("gthread")),
    Server("gunicorn-gevent", "gevent", gunicorn("gevent")),
    Server(
        "uwsgi",
        "uwsgi",
        uwsgi(keep_alive=False),
        gives_length=True,
        note="--http-socket knows no keep-alive: one connection per request; the application gives Content-Length",
    ),
    Server(
        "uwsgi-http11",
        "uwsgi",
        uwsgi(keep_alive=True),
        gives_length=True,
        note="--http11-socket: keep-alive, one thread held per connection; the application gives Content-Length",
    ),
    Server(
        "wsgo",
        "wsgo",
        wsgo,
        discards_stdout=True,
        processors="own",
        note="its access log can't be switched off (it goes to /dev/null here); it pins itself to one processor",
    ),
    Server("hoopsnake-static-ring", "hoopsnake", hoopsnake("ring", static=True)),
    Server("hoopsnake-static-epoll", "hoopsnake", hoopsnake("epoll", static=True)),
    Server(
        "nginx", "nginx", nginx, note="one process: sendfile, tcp_nopush and open_file_cache on, its access log off"
    ),
    Server("granian-static", "granian", granian(1, static=True), note="--static-path-mount"),
    Server("wsgo-static", "wsgo", wsgo_static, discards_stdout=True, processors="own"),
]

BY_NAME = {server.name: server for server in SERVERS}

GROUPS = {
    "all": [server.name for server in SERVERS],
    "hoopsnake": ["hoopsnake-ring", "hoopsnake-epoll", "hoopsnake-tokio-uring"],
    "peers": [server.name for server in SERVERS if server.package != "hoopsnake"],
}

PACKAGES = ["fastwsgi", "bjoern", "granian", "gunicorn", "gevent", "uwsgi", "wsgo", "flask", "django"]


def resolve(names):
    """Names and groups, comma-separated, as servers in the table's order; raises ValueError with a sentence."""
    wanted = set()
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name not in GROUPS and name not in BY_NAME:
            raise ValueError(f"--servers: there is no server {name!r}; there are {', '.join([*GROUPS, *BY_NAME])}.")
        wanted.update(GROUPS.get(name, [name]))
    return [server.name for server in SERVERS if server.name in wanted]


def environment(server, launch, base):
    """What the server is started with: the applications importable, nothing of the caller's Python set-up."""
    clean = {
        key: value
        for key, value in base.items()
        if not key.startswith(("PYTHON", "HOOPSNAKE_", "GRANIAN_", "UWSGI_", "GUNICORN_"))
    }
    if server.package != "hoopsnake":
        clean["PYTHONPATH"] = f"{launch.apps}:{launch.packages}"
    if server.gives_length:
        clean["LOADTEST_CONTENT_LENGTH"] = "1"
    return clean


def shown(command, root=None):
    """A command as text for the report, with the checkout's folder left out."""
    root = str(root or Path(__file__).resolve().parent.parent) + "/"
    return " ".join(part if " " not in part else f"'{part}'" for part in command).replace(root, "")


def site_packages(venv):
    """The venv's site-packages (made by the Python that runs this)."""
    found = sorted(Path(venv).glob("lib/python3*/site-packages"))
    return found[0] if found else Path(venv) / f"lib/python3.{sys.version_info.minor}/site-packages"
