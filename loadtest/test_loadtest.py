"""The pure parts of the load test: what the tools print, /proc, ratios, targets, the guard, the tables, the chart.

Run with `pytest loadtest/test_loadtest.py`. Starts nothing but one `sleep`.
"""

import dataclasses
import os
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import chart  # noqa: E402
import clients  # noqa: E402
import figures  # noqa: E402
import options  # noqa: E402
import processes  # noqa: E402
import progress  # noqa: E402
import report  # noqa: E402
import runner  # noqa: E402
import scenarios  # noqa: E402
import servers  # noqa: E402
import sweep  # noqa: E402
import variants  # noqa: E402

WRK = """Running 5s test @ http://127.0.0.1:8911/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   268.68us  687.26us   5.36ms   91.41%
    Req/Sec    50.83k     3.60k   56.78k    70.00%
  Latency Distribution
     50%   59.00us
     75%   93.00us
     90%  624.00us
     99%    3.56ms
  252890 requests in 5.01s, 30.40MB read
"""
WRK_RATE = "Requests/sec:  50376.24\nTransfer/sec:      6.05MB\n"


def test_wrk_clean():
    load = clients.parse_wrk(WRK + WRK_RATE)
    assert load == clients.Load(252890, 5.01, 50376.24, pytest.approx(0.059), 3.56, 0, 0, 31876710)


def test_wrk_errors():
    errors = "  Socket errors: connect 1, read 20, write 300, timeout 4000\n  Non-2xx or 3xx responses: 17\n"
    load = clients.parse_wrk(WRK + errors + WRK_RATE)
    assert (load.socket_errors, load.bad_statuses) == (4321, 17)


@pytest.mark.parametrize("text", ["", "unable to connect to 127.0.0.1:1 Connection refused", WRK, WRK_RATE])
def test_wrk_without_summary(text):
    with pytest.raises(clients.ClientFailed):
        clients.parse_wrk(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("545.00us", 0.545), ("1.21ms", 1.21), ("2.00s", 2000), ("1.50m", 90_000), ("1.00h", 3_600_000)],
)
def test_duration(text, expected):
    assert clients.duration_ms(text) == pytest.approx(expected)


OHA = """{"summary": {"total": 2.0, "totalData": 900, "requestsPerSec": 3910.1},
 "latencyPercentiles": {"p50": 0.0017, "p99": 0.0068},
 "statusCodeDistribution": {"200": 7800, "302": 20, "500": 4},
 "errorDistribution": {"aborted due to deadline": 8, "connection refused": 3}}"""


def test_oha():
    load = clients.parse_oha(OHA)
    assert (load.requests, load.rps, load.socket_errors, load.bad_statuses) == (7824, 3912.0, 3, 4)
    assert load.bytes_read == 900
    assert (load.p50_ms, load.p99_ms) == (pytest.approx(1.7), pytest.approx(6.8))


def test_oha_without_an_answer():
    text = """{"summary": {"total": 1.0, "totalData": 0}, "latencyPercentiles": {"p50": null, "p99": null},
     "statusCodeDistribution": {}}"""
    assert clients.parse_oha(text) == clients.Load(0, 1.0, 0.0, 0.0, 0.0, 0, 0, 0)


@pytest.mark.parametrize("text", ["", "error: no such option", "{}", '{"summary": {}}'])
def test_oha_not_json(text):
    with pytest.raises(clients.ClientFailed):
        clients.parse_oha(text)


STAT = (
    "{pid} ({name}) S {parent} {pid} {session} 0 -1 4194560 100 0 0 0 {user} {system} {cuser} {csystem} 20 0 1 0 5 6 7"
)


def stat_line(pid, parent, session, name="python", ticks=(1, 2, 3, 4)):
    user, system, cuser, csystem = ticks
    return STAT.format(
        pid=pid, name=name, parent=parent, session=session, user=user, system=system, cuser=cuser, csystem=csystem
    )


@pytest.mark.parametrize("name", ["python", "a b", "a) S 9 9 (b", ")", ""])
def test_stat_with_any_command_name(name):
    stat = processes.parse_stat(stat_line(42, 7, 40, name, (10, 200, 3000, 40000)))
    assert stat == processes.Stat(42, 7, 40, 43210, started=5)


def test_tree_is_session_and_descendants():
    lines = [
        stat_line(10, 1, 10),
        stat_line(11, 10, 10),
        stat_line(12, 1, 10),  # orphan in the session
        stat_line(13, 11, 13),
        stat_line(14, 13, 13),  # a session of its own below
        stat_line(20, 1, 20),
        stat_line(100, 20, 20),
    ]
    assert [stat.pid for stat in processes.tree_of(10, map_stats(lines))] == [10, 11, 12, 13, 14]


def map_stats(lines):
    return [processes.parse_stat(line) for line in lines]


def test_own_stat_is_parsed():
    own = next(stat for stat in processes.all_stats() if stat.pid == os.getpid())
    assert (own.parent, own.session) == (os.getppid(), os.getsid(0))


def test_status_memory():
    text = "Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n"
    assert processes.parse_status_kib(text, "VmRSS") == 1024
    assert processes.parse_status_kib(text, "VmHWM") == 2048
    assert processes.parse_status_kib("Name:\tzombie\n", "VmRSS") == 0


def test_busy_ticks_leave_idle_and_iowait_out():
    assert processes.parse_busy_ticks("cpu  1 2 4 1000 2000 8 16 32 64 0\ncpu0 9 9 9\n") == 1 + 2 + 4 + 8 + 16 + 32


def test_child_and_its_children_are_stopped():
    child = processes.Child(["sh", "-c", "sleep 100 & sleep 100; true"], stdout=subprocess.DEVNULL)
    processes.wait_until(lambda: len(child.members()) == 3, 5)
    pids = [stat.pid for stat in child.members()]
    child.stop()
    assert len(pids) == 3
    assert not [stat.pid for stat in processes.all_stats() if stat.session == child.pid and not stat.ended]


def rounds(metric, *values):
    return [{"round": number, metric: value} for number, value in enumerate(values) if value is not None]


def test_medians_and_errors():
    row = figures.medians([{"rps": 1, "errors": 2}, {"rps": 9, "errors": 0}, {"rps": 3, "errors": 5, "idle_bytes": 7}])
    assert row == {"rps": 3, "errors": 7, "idle_bytes": 7}


@pytest.mark.parametrize(
    ("ours", "base", "expected"),
    [
        # A disturbance of a whole round leaves the ratio alone; the ratio of medians would be 60 / 100.
        ((100, 50, 60), (200, 100, 90), 0.5),
        # A round one side failed in counts on neither.
        ((None, 50, 60), (1, 100, 100), 0.55),
        ((10,), (None, 5), None),
        ((10,), (0,), None),
        ((), (), None),
    ],
)
def test_paired_ratio(ours, base, expected):
    assert figures.paired_ratio(rounds("rps", *ours), rounds("rps", *base), "rps") == expected


def entry(scenario, server, mode="pinned", failures=(), **metrics):
    figure = {"round": 0, "errors": 0, "affinity": ["0"], **metrics}
    return {
        "scenario": scenario,
        "mode": mode,
        "server": server,
        "command": f"run {server}",
        "rounds": [figure] if metrics else [],
        "failures": list(failures),
    }


def document(*entries):
    return {
        "entries": list(entries),
        "notes": ["A note."],
        "commit": "0123456789abcdef",
        "changed": False,
        "date": "2026-01-02 03:04 UTC",
        "machine": {"processor": "P", "processors": 2, "kernel": "6.1"},
        "versions": {"python": "3.11.7", "wrk": "4.1"},
        "options": {"rounds": 1, "seconds": 1, "server_core": 0, "client_core": 1},
    }


def hello(server, rps, cpu_us, p99_ms=1.0):
    return entry(
        "hello-64",
        server,
        rps=rps,
        cpu_us=cpu_us,
        p50_ms=0.5,
        p99_ms=p99_ms,
        rss_kib=1000,
        peak_kib=2000,
        others_share=0.1,
    )


def test_targets_met_missed_and_not_measured():
    results = document(
        hello("hoopsnake-ring", 96, 10.6),
        hello("fastwsgi", 100, 10.0),
        entry("idle", "hoopsnake-ring", idle_bytes=4096.0, idle_rps_ratio=0.89),
    )
    found = {target.sentence: target for target in figures.targets(results)}
    assert found["hello, 64 connections: CPU per request against FastWSGI"].met is False
    assert found["hello, 64 connections: requests/s against FastWSGI"].met is True
    assert found["hello, 64 connections: requests/s against wsgo"].met is None
    assert found["10,000 idle connections: bytes of memory each"].met is True
    assert found["10,000 idle connections: hello's requests/s against without"].met is False


def test_flask_target_is_against_the_best_peer():
    results = document(
        *(entry("flask", server, rps=rps) for server, rps in (("hoopsnake-ring", 100), ("bjoern", 125), ("wsgo", 10)))
    )
    target = next(target for target in figures.targets(results) if target.sentence.startswith("Flask"))
    assert (target.measured, target.met) == (0.8, False)


def test_the_elastic_pool_is_against_the_best_fixed_one():
    names = ("hoopsnake-elastic", *figures.FIXED)
    rates = dict(zip(names, (96, 90, 100, 80)))
    results = document(*(entry("cpu5", name, rps=rates[name], threads=30) for name in names))
    found = {target.sentence: target for target in figures.targets(results)}
    rate = found["5 ms of CPU, 16 workers that may become 1,024: requests/s against the best fixed number"]
    assert (rate.measured, rate.met) == (0.96, False)
    assert found["5 ms of CPU, the same: threads more than with 16 workers"].measured == 0


def test_a_source_beside_another():
    results = document(
        entry("priorities", "hoopsnake-ring", rps=9.0, cpu_us=1.0, p99_ms=6.0, alone_p99_ms=2.0, beside_p99_ratio=3.0)
    )
    sentence = "hello's p99 beside a source that saturates the workers against alone"
    target = next(target for target in figures.targets(results) if target.sentence == sentence)
    assert target.met is True
    assert "p99 alone" in report.as_text(results)
    command = clients.wrk_command("wrk", "http://a/", 4, 1, 1, "source.lua", (scenarios.GREEDY_SOURCE,))
    assert command[-3:] == ["http://a/", "--", "198.51.100.1"]


@pytest.mark.parametrize(
    ("values", "expected"), [((1.0, 1.0, 1.0), 0.03), ((1.0, 1.05, 0.99), 0.1), ((2.0, 2.0, 1.0), 1.0)]
)
def test_noise(values, expected):
    assert figures.noise_of(values) == pytest.approx(expected)


BASELINE = {"fastwsgi": {"cpu_us": {"ratio": 1.0, "noise": 0.05}, "rps": {"ratio": 1.0, "noise": 0.05}}}


@pytest.mark.parametrize(
    ("cpu", "rps", "complaints"),
    [
        (1.0, 1.0, 0),
        (1.049, 0.951, 0),
        (1.051, 1.0, 1),
        (1.0, 0.949, 1),
        (1.2, 0.8, 2),
        (0.5, 2.0, 0),  # better is never worse
        (None, 1.0, 1),  # what wasn't measured isn't passed
    ],
)
def test_guard(cpu, rps, complaints):
    assert len(figures.guard_verdict(BASELINE, {"fastwsgi": {"cpu_us": cpu, "rps": rps}})) == complaints


def test_guard_names_a_peer_that_is_missing():
    assert len(figures.guard_verdict(BASELINE, {})) == 2


def test_text_and_markdown():
    results = document(
        hello("hoopsnake-ring", 96000, 10.6),
        hello("fastwsgi", 100000, 10.0),
        entry("hello-64", "wsgo", failures=["wsgo ended.\nlog"]),
    )
    text, markdown = report.as_text(results), report.as_markdown(results)
    cells = next(line.split() for line in text.splitlines() if line.startswith("  hoopsnake-ring"))
    assert cells == ["hoopsnake-ring", "96,000", "0.96×", "0.50", "1.00", "10.6", "1.06×", "1.0", "2.0", "0", "10%"]
    assert "failed: wsgo ended." in text and "NOT MET" in text and "A note." in text
    assert "| hoopsnake-ring | 96,000 | 0.96× |" in markdown
    widths = [line.count("|") for line in markdown.splitlines() if line.startswith("|")]
    assert set(widths) == {12, 5}


def test_a_server_that_leaves_its_processor_is_said():
    strayed = hello("wsgo", 10, 60)
    strayed["rounds"][0]["affinity"] = ["0", "0-1"]
    assert any("wsgo left the processor" in line for line in report.about(document(strayed)))


def test_chart_is_xml_from_fast_to_slow():
    results = document(hello("a<b", 50, 20.0), hello("hoopsnake-ring", 100, 10.0))
    rows = report.chart_rows(results)
    assert [row[0] for row in rows] == ["hoopsnake-ring", "a<b"]
    svg = chart.bars(rows, "T & t", "s", "f")
    drawn = xml.dom.minidom.parseString(svg)
    bars = [float(bar.getAttribute("width")) for bar in drawn.getElementsByTagName("rect")]
    assert bars[0] == pytest.approx(2 * bars[1], abs=0.1)
    assert "prefers-color-scheme: dark" in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_tables_name_what_exists():
    apps = Path(options.HERE, "apps")
    for scenario in scenarios.SCENARIOS:
        assert progress.Progress.cost(scenario, 1) > 0 and scenario.kind in report.COLUMNS
        assert (apps / f"{scenario.app}.py").exists()
        assert set(scenario.servers) <= set(servers.BY_NAME)
        assert not scenario.script or (options.HERE / "lua" / scenario.script).exists()
        assert scenario.base in scenario.servers or scenario.base == "fastwsgi"
    assert set(scenarios.QUICK) <= set(scenarios.BY_NAME)
    assert {server.package for server in servers.SERVERS} - {"hoopsnake", "nginx"} <= set(servers.PACKAGES)


def test_names_on_the_command_line():
    assert [scenario.name for scenario in scenarios.resolve("flask,hello")] == [
        "hello-1",
        "hello-8",
        "hello-64",
        "hello-512",
        "flask",
    ]
    assert servers.resolve("wsgo,hoopsnake") == ["hoopsnake-ring", "hoopsnake-epoll", "hoopsnake-tokio-uring", "wsgo"]
    for resolve in (scenarios.resolve, servers.resolve):
        with pytest.raises(ValueError, match="there is no"):
            resolve("nothing")


@pytest.mark.parametrize(
    ("shares", "repeats", "kept", "calls"),
    [
        ((0.1,), 3, 0.1, 1),
        ((0.9, 0.1), 1, 0.1, 2),
        ((0.5, 0.9), 1, 0.5, 2),
        ((0.9, 0.5, 0.6, 0.0), 2, 0.5, 3),
        ((0.9,), 0, 0.9, 1),
    ],
)
def test_a_disturbed_round_is_repeated(shares, repeats, kept, calls):
    left = list(shares)
    found = runner.undisturbed(lambda: {"others_share": left.pop(0)}, repeats)
    assert (found["others_share"], len(shares) - len(left)) == (kept, calls)


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        ([], "latest"),
        (["--quick"], "quick"),
        (["--only", "hello,flask"], "hello+flask"),
        (["--name", "x"], "x"),
        (["--quick", "--servers", "peers"], "quick-peers"),
    ],
)
def test_result_name(argv, name):
    assert options.result_name(options.arguments(argv)) == name


def test_variants_change_bounds_that_exist():
    text = (Path(variants.ROOT) / "src/limits.rs").read_text()
    for bounds in variants.VARIANTS.values():
        changed = variants.with_limits(text, bounds)
        for name, value in bounds.items():
            assert f"pub const {name}: usize = {value};" in changed
        assert len(changed.splitlines()) == len(text.splitlines())
    with pytest.raises(KeyError):
        variants.with_limits(text, {"NO_SUCH_BOUND": 1})


def test_table_of_a_sweep():
    rows = [
        {"part": "hot", "size": 1024, "server": name, "rps": rps, "cpu_us": 7.5, "p99_ms": 1, "threads": 3}
        | {"round": at, "cpu_ms_per_gb": 250}
        for name, at, rps in (("a", 0, 10), ("a", 1, 30), ("a", 2, 20), ("b", 0, 1234))
    ]
    lines = sweep.table(rows, "hot", ["a", "b"]).splitlines()
    assert lines[2] == "| 1,024 | 20 | 7.5 | 1 | 250 | 1,234 | 7.5 | 1 | 250 |"
    assert lines[-1] == "Threads: a 3, b 3."


def test_commands(tmp_path):
    launch = servers.Launch(
        8000, "hello", Path("/v"), Path("/b/hoopsnake"), Path("/apps"), Path("/site"), tmp_path, None, 64, Path("/f/s")
    )
    assert "/s=/f/s" in servers.BY_NAME["hoopsnake-static-ring"].command(launch)
    assert "/s=/f/s" not in servers.BY_NAME["wsgo"].command(launch)
    if servers.nginx_path():
        servers.BY_NAME["nginx"].command(launch)
        assert "root /f;" in (tmp_path / "nginx.conf").read_text()
    command = servers.BY_NAME["hoopsnake-epoll"].command(launch)
    assert command == [
        "/b/hoopsnake",
        "--http-socket",
        "127.0.0.1:8000",
        "--workers",
        "16",
        "--reactor",
        "epoll",
        "--access-log",
        "off",
        "--pythonpath",
        "/apps",
        "--pythonpath",
        "/site",
        "hello:application",
    ]
    for server in servers.SERVERS:
        with_threads = dataclasses.replace(launch, threads=1000, connections=1000)
        assert all(isinstance(part, str) for part in server.command(with_threads))
    environment = servers.environment(
        servers.BY_NAME["bjoern"], launch, {"PATH": "/bin", "PYTHONHOME": "/x", "HOOPSNAKE_WORKERS": "1"}
    )
    assert environment == {"PATH": "/bin", "PYTHONPATH": "/apps:/site", "LOADTEST_CONTENT_LENGTH": "1"}
