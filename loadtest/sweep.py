#!/usr/bin/env python3
"""Sweeps file sizes over the ways of sending a file: the figures behind the thresholds in src/limits.rs.

    loadtest/sweep.py --build          makes the variants of variants.py first
    loadtest/sweep.py --part hot       files in the page cache, size by size, the servers in turn
    loadtest/sweep.py --part stalled   the same beside readers that have stopped in the middle of a 100 MB file
    loadtest/sweep.py --part cold      each file asked for once, out of the page cache before

One processor for the servers (only one of them has anything to do at a time), one for the client. Loopback only.
"""

import argparse
import json
import os
import random
import select
import statistics
import subprocess
import sys
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
# Files of a size that are asked for cold: enough of them for a median, not more of the disk than has to be.
COLD_BYTES = 100 * 1000 * 1000
COLD_FILES_MAX = 100
# Nobody is sent away while the sweep goes on.
NGINX_PATIENCE = "send_timeout 3600s; keepalive_timeout 3600s;"
SITE = HERE / "build" / "site" / "s"


def say(text):
    """To standard error, so that the tables can be redirected."""
    print(text, file=sys.stderr, flush=True)


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


def hoopsnake(command, driver):
    """A build, with a driver."""

    def made(launch):
        line = servers.hoopsnake(driver, static=True, extra=("--send-timeout", "3600"))(launch)
        return [str(command), *line[1:]]

    return made


def nginx(launch):
    """As in the other scenarios, more patient."""
    line = servers.nginx(launch)
    configuration = Path(launch.log).absolute() / "nginx.conf"
    configuration.write_text(configuration.read_text().replace("sendfile on;", "sendfile on; " + NGINX_PATIENCE))
    return line


def connections(size):
    """Of the client, as in the scenarios."""
    return scenarios.static_scenario("", size).connections


def files(sizes, cold):
    """The files, written once."""
    for size in {1024, STALLED_BYTES, *sizes}:
        measure.static_file(SITE, size)
    if cold:
        for size in sizes:
            for number in range(cold_files(size)):
                path = SITE / f"{size}-{number}.bin"
                if not path.exists() or path.stat().st_size != size:
                    path.write_bytes(random.Random(number).randbytes(size))
        os.sync()


def cold_files(size):
    """How many are asked for."""
    return max(1, min(COLD_FILES_MAX, COLD_BYTES // size))


class Sweep:
    """What all parts share."""

    def __init__(self, options):
        self.options = options
        self.tools = install.ensure_tools(say, False)
        self.running = []
        cores = sorted(os.sched_getaffinity(0))
        self.server_core, self.client_core = cores[0], cores[-1]
        processes.nofile_to_hard_limit()

    def __enter__(self):
        options = self.options
        for name in options.servers:
            if name == "nginx":
                command = nginx
            else:
                build, _, driver = name.partition(":")
                path = options.hoopsnake if build == "hoopsnake" else variants.path_of(build)
                command = hoopsnake(path, driver or options.driver)
            self.running.append(Running(name, command, self.server_core, self.tools["taskset"]))
        try:
            for server in self.running:
                server.start(
                    servers.Launch(
                        port=measure.free_port(),
                        module="hello",
                        venv=HERE / ".venv",
                        hoopsnake=options.hoopsnake,
                        apps=HERE / "apps",
                        packages=servers.site_packages(HERE / ".venv"),
                        log=HERE / "build" / "logs",
                        threads=None,
                        connections=256,
                        files=SITE,
                    )
                )
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

    def helper(self, *arguments):
        """connections.py."""
        command = [sys.executable, str(measure.HELPER), *map(str, arguments)]
        return self.client(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def load(self, server, size):
        """One measurement."""
        url = f"http://127.0.0.1:{server.port}/s/{size}.bin"
        seconds = self.options.seconds
        command = clients.wrk_command(self.tools["wrk"], url, connections(size), seconds, 1)
        cpu = server.cpu_ns()
        load = clients.parse_wrk(clients.run_client(self.client, command, seconds))
        cpu = server.cpu_ns() - cpu
        if load.bad_statuses or load.socket_errors or not load.requests:
            raise SystemExit(f"sweep: {server.name}, {size} bytes: {load}")
        return {
            "rps": load.rps,
            "p99_ms": load.p99_ms,
            "cpu_us": cpu / load.requests / 1000,
            "threads": server.child.threads(),
            "rss_mb": server.child.memory_kib()[0] / 1024,
        }

    def hot(self, rows, beside):
        """All sizes, the servers in turn."""
        for number in range(self.options.rounds):
            for size in self.options.sizes:
                shift = number % len(self.running)
                for server in self.running[shift:] + self.running[:shift]:
                    found = self.load(server, size)
                    rows.append({"part": beside, "size": size, "server": server.name, "round": number, **found})
                    say(
                        f"{beside} {size:>11,} {server.name:<18} "
                        + "  ".join(f"{k} {v:,.1f}" for k, v in found.items())
                    )

    def stalled(self, rows):
        """The same beside stalled readers, which each server has."""
        holding = [self.helper("stalled", server.port, STALLED_READERS, STALLED_BYTES) for server in self.running]
        try:
            for helper in holding:
                ready, _, _ = select.select([helper.process.stdout], [], [], 60)
                line = helper.process.stdout.readline() if ready else ""
                if not line or json.loads(line).get("opened") != STALLED_READERS:
                    raise SystemExit(f"sweep: the stalled readers were not served ({line!r})")
            self.hot(rows, "stalled")
        finally:
            for helper in holding:
                helper.stop()

    def cold(self, rows):
        """Each file once."""
        for size in self.options.sizes:
            for server in self.running:
                cpu = server.cpu_ns()
                with self.helper("cold", server.port, SITE, size, cold_files(size)) as helper:
                    output, _ = helper.process.communicate(timeout=120)
                told = json.loads(output.splitlines()[-1])
                if "times" not in told:
                    raise SystemExit(f"sweep: {server.name}, {size} bytes, cold: {told}")
                found = {
                    "ms": statistics.median(told["times"]) * 1000,
                    "cpu_us": (server.cpu_ns() - cpu) / cold_files(size) / 1000,
                    "threads": server.child.threads(),
                }
                rows.append({"part": "cold", "size": size, "server": server.name, "round": 0, **found})
                say(f"cold {size:>11,} {server.name:<18} " + "  ".join(f"{k} {v:,.1f}" for k, v in found.items()))


def table(rows, part, names):
    """Medians as Markdown: a line for each size, two columns for each server."""
    first = "ms" if part == "cold" else "rps"
    heads = [f"{name} {'ms' if part == 'cold' else 'req/s'} | CPU-µs" for name in names]
    if part != "cold":
        heads = [f"{head} | p99 ms" for head in heads]
    lines = ["| bytes | " + " | ".join(heads) + " |", "|--:" * (1 + len(names) * (2 if part == "cold" else 3)) + "|"]
    for size in sorted({row["size"] for row in rows if row["part"] == part}):
        cells = [f"{size:,}"]
        for name in names:
            mine = [row for row in rows if (row["part"], row["size"], row["server"]) == (part, size, name)]
            keys = [first, "cpu_us"] + ([] if part == "cold" else ["p99_ms"])
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


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", action="store_true", help="build the variants first")
    parser.add_argument("--part", action="append", choices=["hot", "stalled", "cold"], help="default: all three")
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
    options.servers = options.servers.split(",")
    options.sizes = [scenarios.STATIC[name] for name in options.sizes.split(",")]
    parts = options.part or ["hot", "stalled", "cold"]
    if options.build:
        for name in variants.VARIANTS:
            variants.build(name, say)
    files(options.sizes, "cold" in parts)
    rows = []
    for part in parts:
        with Sweep(options) as sweep:
            if part == "hot":
                sweep.hot(rows, "hot")
            else:
                getattr(sweep, part)(rows)
        print(f"\n{part}\n\n" + table(rows, part, options.servers))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"format": 1, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
