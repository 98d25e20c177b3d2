"""The command line: what may be asked, checked once."""

import argparse
from pathlib import Path

import scenarios
import servers

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BASELINE = HERE / "baseline.json"
GUARD_REPEATS = 5
DISTURBED_SHARE = 0.15  # of one processor, by programs that don't belong to the measurement

DESCRIPTION = """\
Measures hoopsnake and its peers side by side: same machine, same applications, rounds interleaved, one table.

    loadtest/run.py                       everything (long; --quick for a first look)
    loadtest/run.py --only hello,flask    some scenarios
    loadtest/run.py --guard               fails when a ratio to a peer is worse than the committed baseline by more
                                          than its noise

Installs wrk, oha and the peers where they are missing (--no-install: doesn't). Talks to 127.0.0.1 only and ends only
the processes that it started.
"""


def arguments(argv):
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="loadtest/run.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Scenarios: "
        + ", ".join(scenarios.BY_NAME)
        + ".\nServers: "
        + ", ".join(servers.BY_NAME)
        + ".\nGroups of servers: "
        + ", ".join(servers.GROUPS)
        + ".",
    )
    what = parser.add_argument_group("what is measured")
    what.add_argument("--only", metavar="NAMES", help="scenarios, comma-separated; `hello` stands for all hello-*")
    what.add_argument(
        "--servers", metavar="NAMES", help="servers or groups, comma-separated; replaces each scenario's own choice"
    )
    what.add_argument(
        "--mode",
        choices=["pinned", "unpinned", "both"],
        help="one processor each for server and client, or none given; replaces each scenario's own choice",
    )
    what.add_argument(
        "--quick", action="store_true", help="a first look: fewer scenarios and servers, pinned, 2 rounds of 2 s"
    )
    what.add_argument(
        "--hoopsnake",
        metavar="PATH",
        type=Path,
        default=ROOT / ".venv/bin/hoopsnake",
        help="the build (default: .venv/bin/hoopsnake)",
    )
    how = parser.add_argument_group("how")
    how.add_argument("--rounds", type=int, metavar="N", help="rounds of every server (default 3)")
    how.add_argument("--seconds", type=float, metavar="S", help="length of one measurement (default 5)")
    how.add_argument(
        "--repeats",
        type=int,
        metavar="N",
        default=1,
        help="how often a round is repeated in which other programs kept more than "
        f"{DISTURBED_SHARE:.0%} of a processor busy (default 1)".replace("%", "%%"),
    )
    how.add_argument(
        "--server-core", type=int, metavar="N", help="the server's processor when pinned (default: the first)"
    )
    how.add_argument("--client-core", type=int, metavar="N", help="the client's (default: the last)")
    how.add_argument("--transfer-mb", type=int, metavar="MB", default=500, help="size of the long bodies (default 500)")
    how.add_argument(
        "--python",
        metavar="PATH",
        type=Path,
        help="the Python that the peers' venv is made with (default: the one beside hoopsnake)",
    )
    how.add_argument("--no-install", action="store_true", help="use what is there")
    out = parser.add_argument_group("what comes out")
    out.add_argument("--name", help="results/NAME.json (default: latest; quick; or the scenarios' names)")
    out.add_argument("--dated", action="store_true", help="also results/NAME-DATE.json")
    out.add_argument("--markdown", metavar="FILE", type=Path, help="the tables as Markdown")
    out.add_argument(
        "--chart", metavar="FILE", type=Path, help="hello-64 as SVG (default: results/hello.svg, for a whole run)"
    )
    out.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        type=Path,
        help="measure nothing: the tables of an earlier results file",
    )
    guard = parser.add_argument_group("the guard")
    guard.add_argument(
        "--guard",
        action="store_true",
        help=f"compare with {BASELINE.name}; exit status 1 when something is worse (up to 3 minutes)",
    )
    guard.add_argument(
        "--guard-record",
        type=int,
        nargs="?",
        const=GUARD_REPEATS,
        metavar="K",
        help=f"measure K times (default {GUARD_REPEATS}), write {BASELINE.name} with the noise found",
    )
    options = parser.parse_args(argv)
    for name, value in (
        ("--rounds", options.rounds),
        ("--seconds", options.seconds),
        ("--transfer-mb", options.transfer_mb),
    ):
        if value is not None and value <= 0:
            parser.error(f"{name} must be more than 0.")
    if options.repeats < 0:
        parser.error("--repeats can't be less than 0.")
    if options.guard_record is not None and options.guard_record < 3:
        parser.error("--guard-record: the spread of fewer than 3 runs says nothing.")
    return options


def result_name(options):
    """The same name for the same choice of scenarios."""
    if options.name:
        return options.name
    parts = [options.only.replace(",", "+")] if options.only else []
    parts = (
        (["quick"] if options.quick else []) + parts + ([options.servers.replace(",", "+")] if options.servers else [])
    )
    return "-".join(parts)[:100] or "latest"
