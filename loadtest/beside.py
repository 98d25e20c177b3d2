#!/usr/bin/env python3
"""Whether cache hits and small files stay quick while every Python worker sleeps.

    loadtest/beside.py [--rounds N] [--seconds S]

One processor for the server, one for the clients. In each round: alone, then while all workers sleep and as many
requests wait for them.
"""

import argparse
import http.client
import os
import statistics
import sys
import threading
from pathlib import Path

import clients
import install
import measure
import processes
import servers
import sweep
from options import HERE

WORKERS = 16
CONNECTIONS = 64
PATHS = {"cache hit of 10 KB": "/page", "static file of 1 KB": "/s/1024.bin"}


def sleepers(port, stop):
    """Keep every worker asleep, and some requests queued behind them, until told to stop."""

    def ask():
        while not stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
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
    return threads


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--hoopsnake", type=Path, default=HERE.parent / ".venv" / "bin" / "hoopsnake")
    options = parser.parse_args()
    tools = install.ensure_tools(sweep.say, False)
    cores = sorted(os.sched_getaffinity(0))
    sweep.files([1024], False)
    (HERE / "build" / "logs").mkdir(parents=True, exist_ok=True)
    os.sched_setaffinity(0, {cores[-1]})
    launch = servers.Launch(
        port=measure.free_port(),
        module="asleep",
        venv=HERE / ".venv",
        hoopsnake=options.hoopsnake,
        apps=HERE / "apps",
        packages=servers.site_packages(HERE / ".venv"),
        log=HERE / "build" / "logs",
        threads=WORKERS,
        connections=CONNECTIONS,
        files=sweep.SITE,
    )
    server = sweep.Running(
        "beside", servers.hoopsnake("ring", static=True, extra=("--max-age", "3600")), cores[0], tools["taskset"]
    )
    figures = {}
    try:
        server.start(launch)
        measure.get(server.port, "/page")
        for number in range(options.rounds):
            for what, path in PATHS.items():
                for beside in (False, True):
                    stop = threading.Event()
                    asleep = sleepers(server.port, stop) if beside else []
                    url = f"http://127.0.0.1:{server.port}{path}"
                    command = clients.wrk_command(tools["wrk"], url, CONNECTIONS, options.seconds, 1)
                    cpu = server.cpu_ns()
                    load = clients.parse_wrk(clients.run_client(processes.Child, command, options.seconds))
                    cpu = server.cpu_ns() - cpu
                    stop.set()
                    for thread in asleep:
                        thread.join()
                    if load.bad_statuses or load.socket_errors:
                        raise SystemExit(f"beside: {load}")
                    found = {
                        "rps": load.rps,
                        "p50_ms": load.p50_ms,
                        "p99_ms": load.p99_ms,
                        "us": cpu / load.requests / 1000,
                    }
                    figures.setdefault((what, beside), []).append(found)
                    sweep.say(f"{number} {what} {'beside sleepers' if beside else 'alone'}: {found}")
    finally:
        server.child.stop()
    print("| | requests/s | p50 ms | p99 ms | CPU-µs/req | p99 × alone |")
    print("|---|--:|--:|--:|--:|--:|")
    for what in PATHS:
        for beside in (False, True):
            rows = figures[what, beside]
            middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
            pairs = zip(rows, figures[what, False])
            ratio = statistics.median(row["p99_ms"] / alone["p99_ms"] for row, alone in pairs)
            print(
                f"| {what}, {'all workers asleep' if beside else 'alone'} | {middle['rps']:,.0f} "
                f"| {middle['p50_ms']:.2f} | {middle['p99_ms']:.2f} | {middle['us']:.2f} | {ratio:.2f} |"
            )


if __name__ == "__main__":
    sys.exit(main())
