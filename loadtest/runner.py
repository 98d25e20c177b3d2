"""One run: what is there to measure, in which order, and the results document that comes of it."""

import datetime
import functools
import os
import platform
import subprocess
from pathlib import Path

import install
import measure
import processes
import scenarios
import servers
from options import DISTURBED_SHARE, HERE, ROOT
from progress import Progress, say, summary


def machine_facts():
    """Processor, kernel, memory."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "processor": model,
        "processors": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "memory_mb": memory // 1024,
        "load_before": round(os.getloadavg()[0], 2),
    }


def git(*words):
    """Output of a git command in the checkout; empty where that isn't one."""
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=20
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def undisturbed(measure_once, repeats):
    """A round in which other programs took too much of the machine is repeated; the least disturbed one counts."""
    best = None
    for _ in range(1 + repeats):
        found = measure_once()
        if best is None or found.get("others_share", 0) < best.get("others_share", 0):
            best = found
        if best.get("others_share", 0) <= DISTURBED_SHARE:
            break
    return best


class Run:
    """Everything that one call of the program needs."""

    def __init__(self, options):
        self.options = options
        self.notes = []
        self.hoopsnake = options.hoopsnake.absolute() if options.hoopsnake.exists() else None
        if not self.hoopsnake:
            self.note(
                f"hoopsnake isn't measured: {servers.shown([str(options.hoopsnake.absolute())])} isn't there "
                "(build it with `make build`, or name one with --hoopsnake PATH)."
            )
        self.tools = install.ensure_tools(say, not options.no_install)
        venv = HERE / ".venv"
        python = options.python or install.default_python(self.hoopsnake)
        self.peers = install.ensure_peers(venv, python, say, not options.no_install)
        for package in servers.PACKAGES:
            if package not in self.peers:
                self.note(f"{package} isn't installed; what needs it is left out.")
        self.versions = self.find_versions(venv)
        self.check_interpreters()
        cores = sorted(os.sched_getaffinity(0))
        self.server_core = cores[0] if options.server_core is None else options.server_core
        self.client_core = cores[-1] if options.client_core is None else options.client_core
        self.can_pin = self.server_core != self.client_core
        if not self.can_pin:
            self.note("Pinned scenarios are left out: server and client would share one processor.")
        self.limit = processes.nofile_to_hard_limit()
        if self.limit < scenarios.IDLE_CONNECTIONS + 500:
            self.note(
                f"The scenario idle is left out: the descriptor limit is {self.limit}, "
                f"it takes {scenarios.IDLE_CONNECTIONS + 500} (ulimit -Hn)."
            )

    def note(self, sentence):
        """Say it now, and print it with the results."""
        say("! " + sentence)
        self.notes.append(sentence)

    def find_versions(self, venv):
        """Of everything that takes part."""
        versions = {
            "hoopsnake": install.output_of([str(self.hoopsnake), "--version"]).removeprefix("hoopsnake ")
            if self.hoopsnake
            else ""
        }
        versions |= self.peers
        versions["python"] = install.output_of([str(venv / "bin/python"), "--version"]).removeprefix("Python ")
        versions["wrk"] = install.output_of([self.tools["wrk"], "--version"]).split(" [")[0].removeprefix("wrk ")
        versions["oha"] = (
            install.output_of([self.tools["oha"], "--version"]).removeprefix("oha ") if self.tools["oha"] else ""
        )
        return versions

    def check_interpreters(self):
        """hoopsnake imports Flask and Django from the peers' venv, which works for one minor version only."""
        beside = self.hoopsnake.parent / "python" if self.hoopsnake else None
        if beside and beside.exists():
            its = install.output_of([str(beside), "--version"]).removeprefix("Python ")
            if its.split(".")[:2] != self.versions["python"].split(".")[:2]:
                self.note(
                    f"hoopsnake runs on Python {its}, the peers on {self.versions['python']}: "
                    "remove loadtest/.venv and run again to compare like with like."
                )

    def usable(self, name):
        """Whether a server can be measured here."""
        server = servers.BY_NAME[name]
        if server.package == "hoopsnake":
            return self.hoopsnake is not None
        if server.package == "nginx":
            return servers.nginx_path() is not None
        return server.package in self.peers and (server.package != "gevent" or "gunicorn" in self.peers)

    def plan(self):
        """(scenario, mode, names of servers) in order."""
        options = self.options
        chosen = scenarios.resolve(
            options.only or (",".join(scenarios.QUICK) if options.quick else ",".join(scenarios.BY_NAME))
        )
        wanted = servers.resolve(options.servers) if options.servers else None
        plan = []
        for scenario in chosen:
            if scenario.kind == "idle" and self.limit < scenarios.IDLE_CONNECTIONS + 500:
                continue
            needed = {"flask_hello": "flask", "django_page": "django"}.get(scenario.app)
            if needed and needed not in self.peers:
                continue
            modes = (
                ("pinned", "unpinned")
                if options.mode == "both"
                else (options.mode,)
                if options.mode
                else scenario.modes
            )
            if options.quick and not options.mode:
                modes = modes[:1]
            names = wanted or [
                name
                for name in scenario.servers
                if not options.quick or options.only or name in scenarios.QUICK_SERVERS
            ]
            names = [name for name in names if self.usable(name)]
            plan += [(scenario, mode, names) for mode in modes if names and (mode == "unpinned" or self.can_pin)]
        return plan

    def bench(self, seconds):
        """What the rounds share."""
        return measure.Bench(
            tools=self.tools,
            venv=HERE / ".venv",
            hoopsnake=self.hoopsnake,
            here=HERE,
            seconds=seconds,
            server_core=self.server_core,
            client_core=self.client_core,
            transfer_bytes=self.options.transfer_mb * 1_000_000,
        )

    def measure_all(self, plan, rounds, seconds):
        """A results document. Round by round over all servers of a scenario; the order shifts by one each round."""
        entries = {
            (scenario.name, mode, name): {
                "scenario": scenario.name,
                "mode": mode,
                "server": name,
                "command": "",
                "rounds": [],
                "failures": [],
            }
            for scenario, mode, names in plan
            for name in names
        }
        progress = Progress(plan, rounds, seconds)
        bench = self.bench(seconds)
        for scenario, mode, names in plan:
            for number in range(rounds):
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    entry = entries[scenario.name, mode, name]
                    # What failed twice won't work the third time.
                    if len(entry["failures"]) >= 2 and not entry["rounds"]:
                        progress.step(scenario, mode, name, number, rounds, "left out, it failed twice")
                        continue
                    try:
                        once = functools.partial(measure.measure_round, bench, scenario, servers.BY_NAME[name], mode)
                        found = undisturbed(once, self.options.repeats)
                    except measure.RoundFailed as error:
                        entry["failures"].append(str(error))
                        progress.step(scenario, mode, name, number, rounds, "FAILED: " + str(error))
                        continue
                    entry["command"] = found.pop("command")
                    entry["rounds"].append({"round": number, **found})
                    progress.step(scenario, mode, name, number, rounds, summary(found))
        return {
            "format": 1,
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "commit": git("rev-parse", "HEAD"),
            "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
            "machine": machine_facts(),
            "versions": self.versions,
            "options": {
                "rounds": rounds,
                "seconds": seconds,
                "server_core": self.server_core,
                "client_core": self.client_core,
                "transfer_mb": self.options.transfer_mb,
            },
            "notes": self.notes,
            "entries": list(entries.values()),
        }


def write(path, text):
    """A file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    say(f"wrote {servers.shown([str(path.absolute())])}")
