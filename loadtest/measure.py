"""One round of one scenario with one server: start, check the answer, warm up, measure, stop."""

import http.client
import json
import os
import random
import resource
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import clients
import processes
import scenarios
import servers

START_SECONDS = 20
TRANSFER_SECONDS = 20
TRANSFER_LIMIT_SECONDS = 90
IDLE_LIMIT_SECONDS = 60
GREEDY_AHEAD_SECONDS = 2  # until its requests fill the queue, which no server tells
SAMPLE_SECONDS = 0.1  # between two looks at the memory; only a look shows it
HELPER = Path(__file__).resolve().parent / "connections.py"
LUA = Path(__file__).resolve().parent / "lua"


class RoundFailed(Exception):
    """A round gave no figure; the message says why, with the end of the server's log where that helps."""


@dataclass(frozen=True)
class Bench:
    """What stays the same over a run."""

    tools: dict
    venv: Path
    hoopsnake: Path | None
    here: Path  # loadtest/
    seconds: float
    server_core: int
    client_core: int
    transfer_bytes: int = scenarios.TRANSFER_BYTES


def free_port():
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def get(port, path, timeout=5):
    """Status and body of one GET on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def static_file(folder, size):
    """The folder, with a file of `size` bytes in it if the scenario has one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{size}.bin"
    if size and (not path.exists() or path.stat().st_size != size):
        path.write_bytes(random.Random(size).randbytes(size))
    return folder


def client_threads(mode):
    """wrk's threads: one where it has one processor, half the processors else."""
    return 1 if mode == "pinned" else max(1, len(os.sched_getaffinity(0)) // 2)


class Round:
    """A running server and the client that belongs to it."""

    def __init__(self, bench, scenario, server, mode):
        self.bench, self.scenario, self.server, self.mode = bench, scenario, server, mode
        self.source = scenarios.ALONE_SOURCE
        build = bench.here / "build"
        (build / "logs").mkdir(parents=True, exist_ok=True)
        idle = scenarios.IDLE_CONNECTIONS if scenario.kind == "idle" else 0
        self.launch = servers.Launch(
            port=free_port(),
            module=scenario.app,
            venv=bench.venv,
            hoopsnake=bench.hoopsnake,
            apps=bench.here / "apps",
            packages=servers.site_packages(bench.venv),
            log=build / "logs",
            threads=scenario.threads,
            connections=scenario.connections + idle,
            files=static_file(build / "site" / "s", scenario.file_bytes),
        )
        self.log = build / "logs" / f"{scenario.name}-{mode}-{server.name}.log"
        self.command = self.pinned(server.command(self.launch), bench.server_core)
        self.child = None

    def pinned(self, command, core):
        """The command on one processor, in the pinned mode."""
        return [self.bench.tools["taskset"], "-c", str(core), *command] if self.mode == "pinned" else command

    def __enter__(self):
        environment = servers.environment(self.server, self.launch, os.environ)
        with open(self.log, "w") as log:
            stdout = subprocess.DEVNULL if self.server.discards_stdout else log
            try:
                self.child = processes.Child(
                    self.command, environment=environment, folder=self.launch.apps, stdout=stdout, stderr=log
                )
            except OSError as error:
                raise RoundFailed(f"{self.server.name} can't be started: {error}.") from error
        try:
            self.wait_for_answer()
        except BaseException:
            self.child.stop()
            raise
        return self

    def __exit__(self, *_):
        self.child.stop()

    def failed(self, what):
        """A RoundFailed with the end of the log."""
        return RoundFailed(
            f"{self.server.name} {what}.\n"
            f"The end of {servers.shown([str(self.log)])}:\n{processes.last_lines(self.log)}"
        )

    def wait_for_answer(self):
        """Until the first answer is there; then check that it is the right one."""
        last = "no answer"

        def answered():
            nonlocal last
            if not self.child.alive():
                raise self.failed(f"ended with {self.child.process.returncode} before it answered")
            try:
                last = get(self.launch.port, self.scenario.path)
                return True
            except (OSError, http.client.HTTPException) as error:
                last = f"{type(error).__name__}: {error}"
                return False

        if not processes.wait_until(answered, START_SECONDS):
            raise self.failed(f"gave no answer within {START_SECONDS} s ({last})")
        status, body = last
        wanted = self.scenario.answer
        size = self.scenario.answer_bytes
        if status != 200 or (wanted is not None and body != wanted) or (size is not None and len(body) != size):
            raise self.failed(f"gave a wrong first answer (status {status}, {len(body)} bytes, {body[:80]!r})")

    def start_client(self, command, **streams):
        """A load generator on its processor."""
        return processes.Child(self.pinned(command, self.bench.client_core), **streams)

    def load(self, seconds):
        """Run the scenario's client once."""
        url = f"http://{self.launch.address}{self.scenario.path}"
        tools, scenario = self.bench.tools, self.scenario
        if scenario.client == "oha":
            if not tools["oha"]:
                raise RoundFailed("oha is missing.")
            body = self.body_file(scenario.body_bytes)
            command = clients.oha_command(tools["oha"], url, scenario.connections, seconds, body)
            return clients.parse_oha(clients.run_client(self.start_client, command, seconds))
        script = LUA / scenario.script if scenario.script else None
        whole = max(1, round(seconds))
        threads, arguments = (
            client_threads(self.mode),
            (self.source, str(scenarios.MEASURED_PACE_MS)) if scenario.kind == "beside" else (),
        )
        command = clients.wrk_command(tools["wrk"], url, scenario.connections, whole, threads, script, arguments)
        return clients.parse_wrk(clients.run_client(self.start_client, command, whole))

    def body_file(self, count):
        """A file of `count` bytes for the client to send."""
        path = self.bench.here / "build" / f"body-{count}"
        if not path.exists() or path.stat().st_size != count:
            path.write_bytes(b"b" * count)
        return path

    def helper(self, *arguments):
        """connections.py, on the client's processor."""
        command = [sys.executable, str(HELPER), *map(str, arguments)]
        return self.start_client(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def measured_load(self):
        """The load's figures with the server's CPU time, and how busy others kept the machine meanwhile."""
        cpu, busy, own, began = self.child.cpu_seconds(), processes.machine_busy_seconds(), own_cpu(), time.monotonic()
        load = self.load(max(self.bench.seconds, self.scenario.seconds_least))
        cpu = self.child.cpu_seconds() - cpu
        wall = time.monotonic() - began
        others = processes.machine_busy_seconds() - busy - cpu - (own_cpu() - own)
        if not self.child.alive():
            raise self.failed("died under load")
        # An error answered quickly is no request served.
        good = load.requests - load.bad_statuses
        if good <= 0:
            raise self.failed(f"served no request under load ({load.bad_statuses} answers were errors)")
        # wrk corrects latencies by the interval between answers, which is nonsense where they come in batches.
        latency = {} if self.scenario.script == "pipeline.lua" else {"p50_ms": load.p50_ms, "p99_ms": load.p99_ms}
        return {
            "requests": good,
            "rps": load.rps * good / load.requests,
            **latency,
            "cpu_us": cpu / good * 1e6,
            "cpu_share": cpu / wall,
            "errors": load.socket_errors + load.bad_statuses,
            "bad_statuses": load.bad_statuses,
            "others_share": max(0.0, others / wall),
        }

    def measure(self):
        """The round's figures as a dictionary."""
        kind = {
            "load": self.plain,
            "idle": self.beside_idle,
            "beside": self.beside_greedy,
            "download": self.transfer,
            "upload": self.transfer,
        }
        figures = kind[self.scenario.kind]()
        rss, peak = self.child.memory_kib()
        threads, affinity = self.child.threads(), self.child.affinity()
        return {**figures, "rss_kib": rss, "peak_kib": peak, "threads": threads, "affinity": affinity}

    def plain(self):
        """Warm up, measure."""
        self.load(self.scenario.warm_up)
        return self.measured_load()

    def beside_idle(self):
        """Measure without idle connections, open them, measure again; memory is read between, when all is warm."""
        self.load(self.scenario.warm_up)
        alone = self.measured_load()
        before, _ = self.child.memory_kib()
        with self.helper("idle", self.launch.port, scenarios.IDLE_CONNECTIONS) as opener:
            opened = self.answer_of(opener, IDLE_LIMIT_SECONDS)
            after, _ = self.child.memory_kib()
            figures = self.measured_load()
            opener.process.stdin.close()
            alive = self.answer_of(opener, IDLE_LIMIT_SECONDS)["alive"]
        if not opened["opened"]:
            raise self.failed("kept no idle connection")
        return {
            **figures,
            "idle_opened": opened["opened"],
            "idle_alive": alive,
            "alone_rps": alone["rps"],
            "idle_rps_ratio": figures["rps"] / alone["rps"],
            "idle_bytes": (after - before) * 1024 / opened["opened"],
        }

    def beside_greedy(self):
        """Measure alone, then while another source has more for the workers to do than they can."""
        self.load(self.scenario.warm_up)
        alone = self.measured_load()
        self.source = scenarios.MEASURED_SOURCE
        url = f"http://{self.launch.address}{self.scenario.greedy_path}"
        # It is stopped when the measurement is over.
        seconds = (
            round(max(self.bench.seconds, self.scenario.seconds_least)) + GREEDY_AHEAD_SECONDS + clients.GRACE_SECONDS
        )
        command = clients.wrk_command(
            self.bench.tools["wrk"],
            url,
            scenarios.GREEDY_CONNECTIONS,
            seconds,
            1,
            LUA / self.scenario.script,
            (scenarios.GREEDY_SOURCE,),
        )
        with self.start_client(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as greedy:
            time.sleep(GREEDY_AHEAD_SECONDS)
            figures = self.measured_load()
            if not greedy.alive():
                raise self.failed("was left alone by the greedy client")
        return {**figures, "alone_p99_ms": alone["p99_ms"], "beside_p99_ratio": figures["p99_ms"] / alone["p99_ms"]}

    def transfer(self):
        """One long body; the tree's memory is sampled while it goes over."""
        self.transfer_once(scenarios.MIB * 4, rate=0)
        before, _ = self.child.memory_kib()
        cpu = self.child.cpu_seconds()
        rate = self.bench.transfer_bytes // TRANSFER_SECONDS if self.scenario.kind == "download" else 0
        told, highest = self.transfer_once(self.bench.transfer_bytes, rate)
        return {
            "transfer_seconds": told["seconds"],
            "transfer_bytes": told["bytes"],
            "growth_kib": highest - before,
            "cpu_seconds": self.child.cpu_seconds() - cpu,
            "errors": 0,
        }

    def transfer_once(self, count, rate):
        """Move `count` bytes; what the helper told and the highest resident memory seen."""
        arguments = [self.scenario.kind, self.launch.port, count] + ([rate] if self.scenario.kind == "download" else [])
        highest = 0
        with self.helper(*arguments) as helper:
            deadline = time.monotonic() + TRANSFER_LIMIT_SECONDS
            while helper.alive() and time.monotonic() < deadline:
                highest = max(highest, self.child.memory_kib()[0])
                time.sleep(SAMPLE_SECONDS)
            told = self.answer_of(helper, 1)
        if told.get("bytes") != count or told.get("status") != 200:
            raise self.failed(f"moved {told.get('bytes')} of {count} bytes, status {told.get('status')}")
        return told, max(highest, self.child.memory_kib()[0])

    def answer_of(self, helper, seconds):
        """The helper's next line of JSON."""
        ready, _, _ = select.select([helper.process.stdout], [], [], seconds)
        line = helper.process.stdout.readline() if ready else ""
        if not line:
            raise self.failed(f"kept the helper waiting for more than {seconds} s")
        told = json.loads(line)
        if "failure" in told:
            raise self.failed(f"failed the helper ({told['failure']})")
        return told


def own_cpu():
    """CPU seconds of this process and of the clients that have ended."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


def measure_round(bench, scenario, server, mode):
    """One round; raises RoundFailed."""
    try:
        with Round(bench, scenario, server, mode) as running:
            figures = running.measure()
            figures["command"] = servers.shown(running.command).replace(str(running.launch.port), "PORT")
            return figures
    except clients.ClientFailed as error:
        raise RoundFailed(f"{server.name}: {error}") from error
