#!/usr/bin/env python3
"""Measures hoopsnake and its peers side by side. `loadtest/run.py --help` says how; standard library only."""

import json
import signal
import sys

import chart
import report
from guard import guard, guard_record
from options import HERE, arguments, result_name
from progress import say
from runner import Run, write

RESULTS = HERE / "results"


def draw(results):
    """The README's chart, or None where hello-64 wasn't measured."""
    rows = report.chart_rows(results)
    if not rows:
        return None
    return chart.bars(
        rows,
        "Hello, World! — requests per second on one core",
        "64 connections, one process; CPU-µs: processor time of the server per request",
        f"{results['machine']['processor']}, Linux {results['machine']['kernel']}, "
        f"Python {results['versions']['python']}, {results['date'][:10]}",
    )


def publish(results, options, name):
    """Table on stdout, files beside."""
    print(report.as_text(results))
    if options.markdown:
        write(options.markdown, report.as_markdown(results))
    where = options.chart or (RESULTS / "hello.svg" if name == "latest" and not options.source else None)
    picture = draw(results) if where else None
    if picture:
        write(where, picture)
    elif options.chart:
        say("No chart: it takes hello-64 pinned.")


def ordinary(options):
    """Measure and publish. Exit status 1 when a server gave no figure at all."""
    if options.source:
        publish(json.loads(options.source.read_text()), options, options.source.stem)
        return 0
    run = Run(options)
    plan = run.plan()
    if not plan:
        raise SystemExit("loadtest: nothing is left to measure.")
    rounds = options.rounds or (2 if options.quick else 3)
    seconds = options.seconds or (2 if options.quick else 5)
    results = run.measure_all(plan, rounds, seconds)
    name = result_name(options)
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    write(RESULTS / f"{name}.json", text)
    if options.dated:
        write(RESULTS / f"{name}-{results['date'][:10]}.json", text)
    publish(results, options, name)
    return 1 if any(not entry["rounds"] for entry in results["entries"]) else 0


def stop_on_signal(number, _):
    """All three end the run through every `finally`."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main(argv=None):
    """The exit status: 0 fine, 1 a figure is missing or the guard failed, 2 a wrong command line, 130 interrupted."""
    options = arguments(argv)
    # SIGINT too: a shell's background job starts with it ignored, and Python then leaves it so.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_on_signal)
    try:
        if options.guard_record is not None:
            return guard_record(options)
        return guard(options) if options.guard else ordinary(options)
    except ValueError as error:
        say(f"loadtest: {error}")
        return 2
    except KeyboardInterrupt:
        say("interrupted; all servers are stopped.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
