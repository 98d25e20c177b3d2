#!/usr/bin/env python3
"""Whether others stay quick beside what takes long: p99 alone, and beside it.

    loadtest/beside.py --what sleepers    every Python worker sleeps, and as many requests wait for one
    loadtest/beside.py --what stalled     200 readers have stopped in the middle of a file of 100 MB
    loadtest/beside.py --what cold        one reader gets files of 1 MB, and of 100 MB, out of the page cache and not

One processor for the server, one for the clients. In each round each server and each request, alone and beside each.
"""

import argparse
import contextlib
import http.client
import os
import statistics
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import scenarios
import sweep
from options import HERE

WORKERS = 16
FILES = {"file of 1 KB": "/s/1024.bin", "file of 10 KB": "/s/10240.bin"}


@contextlib.contextmanager
def sleepers(_, server):
    """Every worker asleep, and some requests queued behind them."""
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            try:
                while not stop.is_set():
                    connection.request("GET", "/sleep")
                    connection.getresponse().read()
            except OSError:
                pass
            finally:
                connection.close()

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(2 * WORKERS)]
    for thread in threads:
        thread.start()
    try:
        yield dict
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def stalled(machine, server):
    """Readers that have stopped within a large file."""
    with machine.stalled_readers(server):
        yield dict


def reader(size, cold):
    """One that gets files of `size` bytes, from the disk or from the page cache."""

    @contextlib.contextmanager
    def beside(machine, server):
        with machine.reader(server, size, cold) as ended:

            def told():
                times = ended()
                return {"reads": len(times) / sum(times), "read_ms": statistics.median(times) * 1000}

            yield told

    return beside


@contextlib.contextmanager
def nothing(*_):
    """The measurement that the others are compared with."""
    yield dict


@dataclass(frozen=True)
class What:
    """What is measured."""

    module: str
    threads: int | None
    paths: dict  # what others ask for; nginx has the files only
    beside: dict  # after "alone"
    servers: str
    flags: tuple = ()
    connections: int = 64
    rate: int | None = None  # requests a second; else as many as there can be


WHAT = {
    "sleepers": What(
        "asleep",
        WORKERS,
        {"cache hit of 10 KB": "/page", "file of 1 KB": "/s/1024.bin"},
        {"all workers asleep": sleepers},
        "ring",
        ("--max-age", "3600"),
    ),
    "stalled": What(
        "hello",
        None,
        {"hello": "/", **FILES},
        {f"beside {sweep.STALLED_READERS} stalled readers": stalled},
        "ring,epoll,nginx",
    ),
    "cold": What(
        "hello",
        None,
        {"hello": "/", "file of 1 KB": "/s/1024.bin"},
        {
            f"beside {name} reads of {text}": reader(scenarios.STATIC[size], name == "cold")
            for size, text in (("1m", "1 MB"), ("100m", "100 MB"))
            for name in ("hot", "cold")
        },
        "ring,epoll,nginx,nginx-aio",
        # So few that they don't wait for each other, nor for the reader's own work.
        connections=4,
        rate=2000,
    ),
}


def measured(machine, what, server, path, company):
    """One measurement: the others' figures, and what their company told."""
    with company(machine, server) as told:
        return {**machine.ask(server, path, what.connections, what.rate), **told()}


def table(rows):
    """Medians as Markdown."""
    lines = ["| server | others ask for | | requests/s | p50 ms | p99 ms | × alone | CPU-µs | threads | reads/s | ms |"]
    lines.append("|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for (server, path, company), found in rows.items():
        middle = {key: statistics.median(row[key] for row in found) for key in found[0]}
        ratios = [row["p99_ms"] / alone["p99_ms"] for row, alone in zip(found, rows[server, path, "alone"])]
        reads = f"{middle['reads']:,.1f} | {middle['read_ms']:.2f}" if "reads" in middle else "|"
        lines.append(
            f"| {server} | {path} | {company} | {middle['rps']:,.0f} | {middle['p50_ms']:.2f} | {middle['p99_ms']:.2f} "
            f"| {statistics.median(ratios):.2f} | {middle['cpu_us']:.2f} | {middle['threads']:.0f} | {reads} |"
        )
    return "\n".join(lines)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=WHAT, default="sleepers")
    parser.add_argument("--servers", help="ring, epoll, nginx, nginx-aio; comma-separated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--hoopsnake", type=Path, default=HERE.parent / ".venv" / "bin" / "hoopsnake")
    options = parser.parse_args()
    what = WHAT[options.what]
    names = (options.servers or what.servers).split(",")
    sweep.files([scenarios.STATIC["10k"]], [scenarios.STATIC["1m"], scenarios.STATIC["100m"]])
    commands = {name: sweep.NGINX.get(name) or sweep.hoopsnake(options.hoopsnake, name, what.flags) for name in names}
    rows = {}
    with sweep.Machine(options, commands, what.module, what.threads) as machine:
        # The sleepers are threads of this process: on the clients' processor.
        os.sched_setaffinity(0, {machine.client_core})
        for number in range(options.rounds):
            for server in machine.in_turn(number):
                for path, url in what.paths.items():
                    if server.name in sweep.NGINX and not url.startswith("/s/"):
                        continue
                    for company, beside in {"alone": nothing, **what.beside}.items():
                        found = measured(machine, what, server, url, beside)
                        rows.setdefault((server.name, path, company), []).append(found)
                        sweep.say(f"{number} {server.name} {path} {company}: {found}")
    print(table(rows))


if __name__ == "__main__":
    sys.exit(main())
