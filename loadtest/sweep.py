#!/usr/bin/env python3
"""Sweeps file sizes over the ways of sending a file: the figures behind the thresholds in src/limits.rs.

    loadtest/sweep.py --build          makes the variants of variants.py first
    loadtest/sweep.py --part hot       files in the page cache, size by size, the servers in turn
    loadtest/sweep.py --part stalled   the same beside readers that have stopped in the middle of a 100 MB file
    loadtest/sweep.py --part cold      files of which each is put out of the page cache before it is asked for

One processor for the servers (only one of them has anything to do at a time), one for the client. Loopback only.
"""

import argparse
import contextlib
import json
import os
import random
import select
import statistics
import subprocess
import sys
import time
from pathlib import Path

import clients
import install
import measure
import processes
import scenarios
import servers
import variants
from options import HERE

STALLED_READERS = 200
STALLED_BYTES = 100 * 1000 * 1000
# Files of a size that a reader goes over: some, so that one isn't read again at once, and not more of the disk than
# has to be.
BYTES_READ = 100 * 1000 * 1000
FILES_READ_MIN = 4
FILES_READ_MAX = 100
# For an answer of connections.py.
HELPER_SECONDS = 60
# Nobody is sent away while the sweep goes on.
NGINX_PATIENCE = "send_timeout 3600s; keepalive_timeout 3600s;"
# Of a client, at once.
CONNECTIONS_MAX = 256
SITE = HERE / "build" / "site" / "s"


def say(text):
    """To standard error, so that the tables can be redirected."""
    print(text, file=sys.stderr, flush=True)


def launch_with(options, module, threads, clients_most):
    """What each server is started with: an application of apps/ and the files."""
    return servers.Launch(
        port=measure.free_port(),
        module=module,
        venv=HERE / ".venv",
        hoopsnake=options.hoopsnake,
        apps=HERE / "apps",
        packages=servers.site_packages(HERE / ".venv"),
        log=HERE / "build" / "logs",
        threads=threads,
        connections=clients_most,
        files=SITE,
    )


class Running:
    """One server under test."""

    def __init__(self, name, command, core, taskset, environment=None):
        (HERE / "build" / "logs").mkdir(parents=True, exist_ok=True)
        self.name = name
        self.port = 0
        self.core, self.taskset, self.environment = core, taskset, environment
        self.child, self.command = None, command

    def start(self, launch):
        """Start and wait for an answer."""
        self.port = launch.port
        log = HERE / "build" / "logs" / f"sweep-{self.name}.log"
        with open(log, "w") as out:
            command = [self.taskset, "-c", str(self.core), *self.command(launch)]
            self.child = processes.Child(command, folder=launch.apps, stdout=out, stderr=out)

        def answered():
            try:
                return measure.get(self.port, "/s/1024.bin")[0] == 200
            except OSError:
                return False

        if not processes.wait_until(answered, measure.START_SECONDS):
            raise SystemExit(f"sweep: {self.name} gave no answer:\n{processes.last_lines(log)}")

    def cpu_ns(self):
        """CPU time of all its threads."""
        total = 0
        for stat in self.child.members():
            for thread in Path(f"/proc/{stat.pid}/task").iterdir():
                total += int((thread / "schedstat").read_text().split()[0])
        return total


def hoopsnake(command, driver, flags=()):
    """A build, with a driver."""

    def made(launch):
        line = servers.hoopsnake(driver, static=True, extra=("--send-timeout", "3600", *flags))(launch)
        return [str(command), *line[1:]]

    return made


def nginx(more=""):
    """As in the other scenarios, more patient, and with more directives."""

    def made(launch):
        line = servers.nginx(launch)
        configuration = Path(line[-1])
        text = configuration.read_text().replace("sendfile on;", f"sendfile on; {NGINX_PATIENCE} {more}")
        configuration.write_text(text)
        return line

    return made


# The second reads what isn't in the page cache on threads of its own.
NGINX = {"nginx": nginx(), "nginx-aio": nginx("aio threads;")}


def connections(size):
    """Of the client, as in the scenarios."""
    return scenarios.static_scenario("", size).connections


def files(sizes, read=()):
    """The files, written once; of the sizes that are read one after the other, several."""
    for size in {1024, STALLED_BYTES, *sizes}:
        measure.static_file(SITE, size)
    for size in read:
        for number in range(files_read(size)):
            path = SITE / f"{size}-{number}.bin"
            if not path.exists() or path.stat().st_size != size:
                path.write_bytes(random.Random(number).randbytes(size))
    os.sync()


def files_read(size):
    """How many of them there are."""
    return max(FILES_READ_MIN, min(FILES_READ_MAX, BYTES_READ // size))


class Machine:
    """The servers, each on the one processor, and the clients, on the other."""

    def __init__(self, options, commands, module="hello", threads=None):
        self.options, self.module, self.threads = options, module, threads
        self.tools = install.ensure_tools(say, False)
        cores = sorted(os.sched_getaffinity(0))
        self.server_core, self.client_core = cores[0], cores[-1]
        self.running = [
            Running(name, command, self.server_core, self.tools["taskset"]) for name, command in commands.items()
        ]
        processes.nofile_to_hard_limit()

    def __enter__(self):
        try:
            for server in self.running:
                server.start(launch_with(self.options, self.module, self.threads, CONNECTIONS_MAX))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for server in self.running:
            if server.child:
                server.child.stop()

    def client(self, command, **streams):
        """On its processor."""
        return processes.Child([self.tools["taskset"], "-c", str(self.client_core), *command], **streams)

    def in_turn(self, number):
        """The servers, in another order in each round."""
        shift = number % len(self.running)
        return self.running[shift:] + self.running[:shift]

    @contextlib.contextmanager
    def helper(self, *arguments):
        """connections.py, which leaves the processor to other clients; what it says, line by line, for whoever asks
        (`True`: after it was told to end).
        """
        command = ["nice", "-n", "19", sys.executable, str(measure.HELPER), *map(str, arguments)]
        with self.client(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:

            def says(end=False):
                if end:
                    child.process.stdin.close()
                ready, _, _ = select.select([child.process.stdout], [], [], HELPER_SECONDS)
                line = child.process.stdout.readline() if ready else ""
                told = json.loads(line or "{}")
                if not told or "failure" in told:
                    raise SystemExit(f"sweep: {arguments[0]}: {line!r}")
                return told

            yield says

    @contextlib.contextmanager
    def stalled_readers(self, server):
        """Those who have stopped in the middle of a large file."""
        with self.helper("stalled", server.port, STALLED_READERS, STALLED_BYTES) as says:
            if says().get("opened") != STALLED_READERS:
                raise SystemExit("sweep: the stalled readers were not served")
            yield

    @contextlib.contextmanager
    def reader(self, server, size, cold):
        """One who gets files of a size, one after the other; a call that ends it and returns the seconds of each."""
        temperature = "cold" if cold else "hot"
        with self.helper("reading", server.port, SITE, size, files_read(size), temperature) as says:
            says()
            yield lambda: says(True)["times"]

    def ask(self, server, path, connections, rate=None):
        """One measurement, of as many requests as there can be, or of so many a second."""
        url = f"http://127.0.0.1:{server.port}{path}"
        seconds = self.options.seconds
        if rate:
            command, parse = (
                clients.oha_command(self.tools["oha"], url, connections, seconds, rate=rate),
                clients.parse_oha,
            )
        else:
            command, parse = clients.wrk_command(self.tools["wrk"], url, connections, seconds, 1), clients.parse_wrk
        cpu = server.cpu_ns()
        load = parse(clients.run_client(self.client, command, seconds))
        cpu = server.cpu_ns() - cpu
        if load.bad_statuses or load.socket_errors or not load.requests:
            raise SystemExit(f"sweep: {server.name}, {path}: {load}")
        return {
            "rps": load.rps,
            "p50_ms": load.p50_ms,
            "p99_ms": load.p99_ms,
            "cpu_us": cpu / load.requests / 1000,
            "cpu_ms_per_gb": cpu / 1e6 / (load.bytes_read / 1e9),
            "gb_per_s": load.bytes_read / 1e9 / load.seconds,
            "threads": server.child.threads(),
            "rss_mb": server.child.memory_kib()[0] / 1024,
        }


def hot(machine, rows, part="hot"):
    """All sizes, the servers in turn."""
    for number in range(machine.options.rounds):
        for size in machine.options.sizes:
            for server in machine.in_turn(number):
                found = machine.ask(server, f"/s/{size}.bin", connections(size))
                note(rows, part, size, server, number, found)


def stalled(machine, rows):
    """The same beside stalled readers, which each server has."""
    with contextlib.ExitStack() as readers:
        for server in machine.running:
            readers.enter_context(machine.stalled_readers(server))
        hot(machine, rows, "stalled")


def cold(machine, rows):
    """One reader, the servers in turn."""
    for number in range(machine.options.rounds):
        for size in machine.options.sizes:
            for server in machine.in_turn(number):
                with machine.reader(server, size, cold=True) as ended:
                    cpu = server.cpu_ns()
                    time.sleep(machine.options.seconds)  # for as long as was asked for
                    times = ended()
                found = {
                    "ms": statistics.median(times) * 1000,
                    "rps": len(times) / sum(times),
                    "cpu_us": (server.cpu_ns() - cpu) / len(times) / 1000,
                    "threads": server.child.threads(),
                }
                note(rows, "cold", size, server, number, found)


def note(rows, part, size, server, number, found):
    """A row, shown at once."""
    rows.append({"part": part, "size": size, "server": server.name, "round": number, **found})
    say(f"{part} {size:>11,} {server.name:<18} " + "  ".join(f"{k} {v:,.1f}" for k, v in found.items()))


def table(rows, part, names):
    """Medians as Markdown: a line for each size, three or four columns for each server."""
    keys = {"rps": "req/s", "cpu_us": "CPU-µs", **({"ms": "ms"} if part == "cold" else {"p99_ms": "p99 ms"})}
    if part != "cold":
        keys["cpu_ms_per_gb"] = "CPU-ms/GB"
    heads = [f"{name} " + " | ".join(keys.values()) for name in names]
    lines = ["| bytes | " + " | ".join(heads) + " |", "|--:" * (1 + len(names) * len(keys)) + "|"]
    for size in sorted({row["size"] for row in rows if row["part"] == part}):
        cells = [f"{size:,}"]
        for name in names:
            mine = [row for row in rows if (row["part"], row["size"], row["server"]) == (part, size, name)]
            cells += [figure(statistics.median(row[key] for row in mine)) if mine else "–" for key in keys]
        lines.append("| " + " | ".join(cells) + " |")
    threads = {
        name: max((r["threads"] for r in rows if r["part"] == part and r["server"] == name), default=0)
        for name in names
    }
    lines.append("")
    lines.append("Threads: " + ", ".join(f"{name} {count}" for name, count in threads.items()) + ".")
    return "\n".join(lines)


def figure(value):
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


PARTS = {"hot": hot, "stalled": stalled, "cold": cold}


def command_of(name, options):
    """nginx, or a build with a driver."""
    build, _, driver = name.partition(":")
    path = options.hoopsnake if build == "hoopsnake" else variants.path_of(build)
    return NGINX.get(name) or hoopsnake(path, driver or options.driver)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", action="store_true", help="build the variants first")
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all three")
    parser.add_argument(
        "--servers", default="hoopsnake,copied,in-place,sendfile,nginx", help="NAME or NAME:DRIVER, comma-separated"
    )
    parser.add_argument("--driver", default="ring", help="of builds without one (default ring)")
    parser.add_argument(
        "--sizes", default=",".join(scenarios.STATIC), help="names of the static scenarios, without `static-`"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--hoopsnake", type=Path, default=HERE.parent / ".venv" / "bin" / "hoopsnake")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "sweep.json")
    options = parser.parse_args()
    commands = {name: command_of(name, options) for name in options.servers.split(",")}
    options.sizes = [scenarios.STATIC[name] for name in options.sizes.split(",")]
    parts = options.part or list(PARTS)
    if options.build:
        for name in variants.VARIANTS:
            variants.build(name, say)
    files(options.sizes, options.sizes if "cold" in parts else ())
    rows = []
    for part in parts:
        with Machine(options, commands) as machine:
            PARTS[part](machine, rows)
        print(f"\n{part}\n\n" + table(rows, part, list(commands)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"format": 1, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
