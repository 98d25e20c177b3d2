"""From rounds to figures: medians, paired ratios, what the issue's targets say, and the guard's decision. Pure."""

from dataclasses import dataclass
from statistics import median

METRICS = (
    "rps",
    "p50_ms",
    "p99_ms",
    "cpu_us",
    "cpu_share",
    "rss_kib",
    "peak_kib",
    "others_share",
    "idle_bytes",
    "idle_rps_ratio",
    "threads",
    "alone_p99_ms",
    "beside_p99_ratio",
    "growth_kib",
    "transfer_seconds",
    "cpu_seconds",
)
# Pools of a fixed size that the elastic one is measured against.
FIXED = ("hoopsnake-16-workers", "hoopsnake-4-workers", "hoopsnake-1-worker")
NOISE_FLOOR = 0.03
NOISE_FACTOR = 2.0


def medians(rounds):
    """The median of each metric over the rounds that have it; errors are summed."""
    row = {}
    for metric in METRICS:
        values = [figures[metric] for figures in rounds if metric in figures]
        if values:
            row[metric] = median(values)
    row["errors"] = sum(figures.get("errors", 0) for figures in rounds)
    return row


def paired_ratio(rounds, base_rounds, metric):
    """Median of the ratios round by round: both sides were measured soon after each other. None without pairs.

    A round is paired by its number, so that a round one side failed in is left out on both.
    """
    base = {figures["round"]: figures.get(metric) for figures in base_rounds}
    pairs = [(figures.get(metric), base.get(figures["round"])) for figures in rounds]
    ratios = [value / other for value, other in pairs if value is not None and other]
    return median(ratios) if ratios else None


def entry_of(results, scenario, mode, server):
    """The entry of a results document, or None."""
    for entry in results["entries"]:
        if (entry["scenario"], entry["mode"], entry["server"]) == (scenario, mode, server):
            return entry
    return None


def ratio_of(results, scenario, mode, server, base, metric):
    """paired_ratio by names; None where one is missing."""
    one, other = entry_of(results, scenario, mode, server), entry_of(results, scenario, mode, base)
    return paired_ratio(one["rounds"], other["rounds"], metric) if one and other else None


def value_of(results, scenario, mode, server, metric):
    """The median of a metric by names; None where it is missing."""
    entry = entry_of(results, scenario, mode, server)
    return medians(entry["rounds"]).get(metric) if entry and entry["rounds"] else None


@dataclass(frozen=True)
class Target:
    """One promise, and what was measured of it."""

    sentence: str
    measured: float | None
    limit: float
    at_most: bool

    @property
    def met(self):
        """None where it wasn't measured."""
        if self.measured is None:
            return None
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


def at_most(sentence, measured, limit):
    """A promise with an upper limit."""
    return Target(sentence, measured, limit, True)


def at_least(sentence, measured, limit):
    """A promise with a lower limit."""
    return Target(sentence, measured, limit, False)


def inverse(value):
    """1 / value, None kept."""
    return 1 / value if value else None


def targets(results):
    """What the project promises, each against this run."""
    ring, epoll, tokio, pin = "hoopsnake-ring", "hoopsnake-epoll", "hoopsnake-tokio-uring", "pinned"

    def hello(server, base, metric, scenario="hello-64", mode=pin):
        return ratio_of(results, scenario, mode, server, base, metric)

    found = [
        at_most("hello, 64 connections: CPU per request against FastWSGI", hello(ring, "fastwsgi", "cpu_us"), 1.05),
        at_least("hello, 64 connections: requests/s against FastWSGI", hello(ring, "fastwsgi", "rps"), 0.95),
        at_least(
            "hello, 64 connections: requests/s against Granian (1 blocking thread)", hello(ring, "granian", "rps"), 1.5
        ),
        at_least("hello, 64 connections: requests/s against wsgo", hello(ring, "wsgo", "rps"), 7.0),
        at_least("hello, 64 connections: epoll's requests/s against the ring's", hello(epoll, ring, "rps"), 0.85),
        at_most(
            "hello, 64 connections: the ring's CPU per request against tokio-uring's", hello(ring, tokio, "cpu_us"), 1.0
        ),
        at_least("hello, 8 connections: requests/s against FastWSGI", hello(ring, "fastwsgi", "rps", "hello-8"), 0.75),
    ]
    flask = [
        ratio
        for entry in results["entries"]
        if entry["scenario"] == "flask" and entry["mode"] == pin and not entry["server"].startswith("hoopsnake")
        for ratio in [ratio_of(results, "flask", pin, ring, entry["server"], "rps")]
        if ratio is not None
    ]
    found.append(at_least("Flask hello: requests/s against the best peer", min(flask, default=None), 1.0))
    found.append(
        at_most(
            "10,000 idle connections: bytes of memory each", value_of(results, "idle", pin, ring, "idle_bytes"), 4096
        )
    )
    found.append(
        at_least(
            "10,000 idle connections: hello's requests/s against without",
            value_of(results, "idle", pin, ring, "idle_rps_ratio"),
            0.9,
        )
    )
    workers = ratio_of(results, "workers", pin, "hoopsnake-16-workers", "hoopsnake-1-worker", "p99_ms")
    found.append(at_most("hello, 64 connections: p99 with 16 workers against 1", workers, 2.0))
    for peer, name, limit in (("fastwsgi-2", "FastWSGI", 0.95), ("granian-2", "Granian", 1.5)):
        two = hello("hoopsnake-2", peer, "rps", "processes", "unpinned")
        found.append(at_least(f"hello, 64 connections, 2 processes: requests/s against {name}", two, limit))
    found.append(
        at_least("sleep 200 ms, 1,000 connections: requests/s", value_of(results, "sleep", pin, ring, "rps"), 4500)
    )
    elastic = "hoopsnake-elastic"
    found += [
        at_least(
            "sleep 200 ms, 1,000 connections, 16 workers that may become 1,024: requests/s",
            value_of(results, "sleep-elastic", "unpinned", elastic, "rps"),
            4800,
        ),
        at_most(
            "sleep 200 ms, the same: memory against Granian's 2 × 512 threads",
            ratio_of(results, "sleep-elastic", "unpinned", elastic, "granian-2x512", "rss_kib"),
            1.0,
        ),
        at_least(
            "5 ms of CPU, 16 workers that may become 1,024: requests/s against the best fixed number",
            min(filter(None, (ratio_of(results, "cpu5", pin, elastic, fixed, "rps") for fixed in FIXED)), default=None),
            0.97,
        ),
    ]
    threads = [value_of(results, "cpu5", pin, server, "threads") for server in (elastic, FIXED[0])]
    more = threads[0] - threads[1] if None not in threads else None
    found.append(at_most("5 ms of CPU, the same: threads more than with 16 workers", more, 4))
    beside = value_of(results, "priorities", pin, ring, "beside_p99_ratio")
    found.append(at_most("hello's p99 beside a source that saturates the workers against alone", beside, 3.0))
    for scenario, what in (("download", "500 MB to a slow reader"), ("upload", "500 MB uploaded")):
        growth = value_of(results, scenario, "unpinned", ring, "growth_kib")
        found.append(
            at_most(f"{what}: growth of memory in MB", growth * 1024 / 1e6 if growth is not None else None, 20)
        )
    return found


def noise_of(values):
    """How far a repeated measurement strays: twice the largest relative distance from the median, at least 3 %."""
    middle = median(values)
    return max(NOISE_FLOOR, NOISE_FACTOR * max(abs(value / middle - 1) for value in values))


def guard_verdict(baseline, measured):
    """Sentences for what is worse than the baseline by more than its noise; empty: passed.

    Both are {peer: {metric: ...}}; the baseline's leaves hold `ratio` and `noise`, the measured ones a ratio or None.
    CPU per request is worse when larger, requests/s when smaller.
    """
    complaints = []
    for peer, metrics in baseline.items():
        for metric, known in metrics.items():
            ratio = measured.get(peer, {}).get(metric)
            name = {"cpu_us": "CPU-µs per request", "rps": "requests/s"}[metric]
            if ratio is None:
                complaints.append(f"{name} against {peer} wasn't measured.")
                continue
            change = ratio / known["ratio"] - 1
            worse = change if metric == "cpu_us" else -change
            if worse > known["noise"]:
                complaints.append(
                    f"{name} against {peer}: the ratio is {ratio:.3f}, {worse:.1%} worse than "
                    f"the baseline's {known['ratio']:.3f}; "
                    f"its noise is {known['noise']:.1%}."
                )
    return complaints
