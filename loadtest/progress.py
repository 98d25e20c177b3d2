"""Lines that say how far a run is, on stderr, so that stdout is the table alone."""

import sys
import time

import measure
from options import DISTURBED_SHARE

START_SECONDS_GUESS = 1.2


def say(line=""):
    """Progress goes to stderr, so that stdout is the table alone."""
    print(line, file=sys.stderr, flush=True)


def summary(found):
    """A round in a few words."""
    if "growth_kib" in found:
        return f"{found['transfer_seconds']:.1f} s, memory +{found['growth_kib'] / 1000:.1f} MB"
    errors = f", {found['errors']} errors" if found["errors"] else ""
    idle = f", {found['idle_bytes']:,.0f} bytes per idle connection" if "idle_bytes" in found else ""
    latency = f"p99 {found['p99_ms']:.2f} ms, " if "p99_ms" in found else ""
    disturbed = (
        f", others took {found['others_share']:.0%} of a processor" if found["others_share"] > DISTURBED_SHARE else ""
    )
    return f"{found['rps']:,.0f}/s, {latency}{found['cpu_us']:.2f} CPU-µs{idle}{errors}{disturbed}"


class Progress:
    """One line per round, with the time that is left by what the rounds took so far."""

    def __init__(self, plan, rounds, seconds):
        self.weights = {(scenario.name, mode): self.cost(scenario, seconds) for scenario, mode, _ in plan}
        self.total = sum(self.weights[scenario.name, mode] * len(names) * rounds for scenario, mode, names in plan)
        self.done = 0.0
        self.began = time.monotonic()
        count = sum(len(names) for _, _, names in plan) * rounds
        say(f"{count} measurements, about {clock(self.total)}")

    @staticmethod
    def cost(scenario, seconds):
        """Seconds that one round should take."""
        seconds = max(seconds, scenario.seconds_least)
        kinds = {
            "load": seconds,
            "idle": 2 * seconds + 4,
            "beside": 2 * seconds + measure.GREEDY_AHEAD_SECONDS,
            "download": measure.TRANSFER_SECONDS,
            "upload": 5,
        }
        warm_up = 0 if scenario.kind in ("download", "upload") else scenario.warm_up
        return START_SECONDS_GUESS + warm_up + kinds[scenario.kind]

    def step(self, scenario, mode, name, number, rounds, text):
        """One round is over."""
        self.done += self.weights[scenario.name, mode]
        left = (time.monotonic() - self.began) / self.done * (self.total - self.done)
        say(f"{scenario.name} {mode}, round {number + 1}/{rounds}, {name}: {text}  [{clock(left)} left]")


def clock(seconds):
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min" if seconds >= 60 else f"{max(0, int(seconds))} s"
