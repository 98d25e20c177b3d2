#!/usr/bin/env python3
"""A Django site is reloaded again and again under load: no request may fail. Standard library only.

Prints p50 and p99 without and with reloads, and what failed. Exit status 1 if anything did, or if p99 is more than
three times as high.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import measure
import processes
from clients import parse_wrk

HERE = Path(__file__).resolve().parent
RATIO_MAX = 3.0


def serve(port, count):
    """The server with so many processes, ready."""
    packages = next((HERE / ".venv/lib").glob("python3*/site-packages"))
    command = [
        str(HERE.parent / ".venv/bin/hoopsnake"),
        *("--http-socket", f"127.0.0.1:{port}", "--processes", str(count), "--access-log", "off"),
        *("--pythonpath", str(HERE / "apps"), "--pythonpath", str(packages), "django_page:application"),
    ]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def answered():
        try:
            return measure.get(port, "/")[0] == 200
        except OSError:
            return False

    if not processes.wait_until(answered, measure.START_SECONDS):
        server.kill()
        raise SystemExit("loadtest: the server didn't start.")
    return server


def load(port, connections, seconds, each=None, every=0.0):
    """wrk's figures; `each` is called every so many seconds meanwhile, and how often is returned as well."""
    client = subprocess.Popen(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", f"http://127.0.0.1:{port}/"],
        stdout=subprocess.PIPE,
        text=True,
    )
    calls, until = 0, time.monotonic() + seconds - every
    while each and client.poll() is None and time.monotonic() < until:
        # The pace that --every asks for.
        time.sleep(every)
        each()
        calls += 1
    return parse_wrk(client.communicate(timeout=seconds + 60)[0]), calls


def main():
    """Measures once."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=int, default=90, help="of the part with reloads (default 90)")
    options.add_argument("--every", type=float, default=4.0, help="seconds between two SIGHUPs (default 4)")
    options.add_argument("--connections", type=int, default=64)
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--json", type=Path, help="write the figures here as well")
    given = options.parse_args()
    port = measure.free_port()
    server = serve(port, given.processes)
    try:
        load(port, given.connections, 2)
        before, _ = load(port, given.connections, 15)
        during, reloads = load(
            port, given.connections, given.seconds, lambda: server.send_signal(signal.SIGHUP), given.every
        )
    finally:
        server.terminate()
        server.wait(60)
    failed = during.socket_errors + during.bad_statuses
    ratio = during.p99_ms / before.p99_ms
    for name, figures in (("before", before), (f"with {reloads} reloads", during)):
        print(
            f"{name:>16}: {figures.requests:>8,} requests, {figures.rps:>8,.0f}/s, p50 {figures.p50_ms:.1f} ms, "
            f"p99 {figures.p99_ms:.1f} ms, failed {figures.socket_errors + figures.bad_statuses}"
        )
    print(f"p99 with reloads: {ratio:.2f} × p99 before (at most {RATIO_MAX:.0f}); exit status {server.returncode}")
    if given.json:
        parts = {"before": vars(before), "during": vars(during), "reloads": reloads, "p99_ratio": ratio}
        given.json.write_text(json.dumps(parts, indent=1) + "\n")
    return 0 if failed == 0 and ratio <= RATIO_MAX and server.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
