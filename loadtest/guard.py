"""The regression guard: ratios to peers against the committed baseline, and how that baseline is made."""

import json

import figures
import scenarios
from options import BASELINE
from progress import START_SECONDS_GUESS, say
from runner import Run, write

GUARD_SCENARIO, GUARD_MODE, GUARD_OURS, GUARD_PEERS = "hello-64", "pinned", "hoopsnake-ring", ("fastwsgi", "granian")
GUARD_ROUNDS, GUARD_SECONDS = 7, 4
GUARD_MAX_SECONDS = 180
GUARD_NOISE_MAX = 0.25  # a guard that forgives more guards nothing
GUARD_METRICS = ("cpu_us", "rps")


def guard_ratios(run, rounds, seconds):
    """{peer: {metric: ratio}} of one run, with its results."""
    names = [name for name in (GUARD_OURS, *GUARD_PEERS) if run.usable(name)]
    if GUARD_OURS not in names or len(names) < 2:
        raise SystemExit("loadtest: the guard compares hoopsnake with a peer, and one of them isn't there.")
    if not run.can_pin:
        raise SystemExit("loadtest: the guard takes two processors.")
    results = run.measure_all([(scenarios.BY_NAME[GUARD_SCENARIO], GUARD_MODE, names)], rounds, seconds)
    broken = [
        entry["server"]
        for entry in results["entries"]
        if sum(figure["errors"] for figure in entry["rounds"]) or entry["failures"]
    ]
    if broken:
        raise SystemExit(f"loadtest: the guard can't judge, there were errors with {', '.join(broken)}.")
    ratios = {
        peer: {
            metric: figures.ratio_of(results, GUARD_SCENARIO, GUARD_MODE, GUARD_OURS, peer, metric)
            for metric in GUARD_METRICS
        }
        for peer in names
        if peer != GUARD_OURS
    }
    return ratios, results


def guard_size(options):
    """Rounds and seconds that keep the guard within its time."""
    rounds, seconds = options.rounds or GUARD_ROUNDS, options.seconds or GUARD_SECONDS
    expected = rounds * (1 + len(GUARD_PEERS)) * (seconds + 1 + START_SECONDS_GUESS)
    if expected > GUARD_MAX_SECONDS:
        raise SystemExit(
            f"loadtest: {rounds} rounds of {seconds} s take {expected:.0f} s; "
            f"the guard is to take at most {GUARD_MAX_SECONDS}."
        )
    return rounds, seconds


def guard(options):
    """Exit status 1 when a ratio is worse than the baseline by more than its noise."""
    rounds, seconds = guard_size(options)
    if not BASELINE.exists():
        raise SystemExit(f"loadtest: there is no {BASELINE.name}; record one with --guard-record.")
    baseline = json.loads(BASELINE.read_text())
    ratios, results = guard_ratios(Run(options), rounds, seconds)
    if results["machine"]["processor"] != baseline["machine"]["processor"]:
        say(
            f"! The baseline was recorded on another processor ({baseline['machine']['processor']}); "
            "ratios differ between processors."
        )
    for peer, metrics in ratios.items():
        for metric, value in metrics.items():
            known = baseline["ratios"].get(peer, {}).get(metric)
            against = f", baseline {known['ratio']:.3f} ± {known['noise']:.1%}" if known else ", not in the baseline"
            print(f"{GUARD_OURS} / {peer}, {metric}: {value:.3f}{against}")
    complaints = figures.guard_verdict(baseline["ratios"], ratios)
    for complaint in complaints:
        print("WORSE: " + complaint)
    print("The guard failed." if complaints else "The guard passed.")
    return 1 if complaints else 0


def guard_record(options):
    """Measure several times, write ratios and noise."""
    rounds, seconds = guard_size(options)
    run = Run(options)
    runs, results = [], None
    for number in range(options.guard_record):
        say(f"guard run {number + 1} of {options.guard_record}")
        ratios, results = guard_ratios(run, rounds, seconds)
        runs.append(ratios)
    known = {}
    for peer in runs[0]:
        for metric in GUARD_METRICS:
            values = [ratios[peer][metric] for ratios in runs]
            known.setdefault(peer, {})[metric] = {
                "ratio": round(figures.median(values), 4),
                "noise": round(figures.noise_of(values), 4),
                "runs": [round(value, 4) for value in values],
            }
    loud = [
        f"{metric} against {peer} {leaf['noise']:.0%}"
        for peer, leaves in known.items()
        for metric, leaf in leaves.items()
        if leaf["noise"] > GUARD_NOISE_MAX
    ]
    if loud:
        raise SystemExit(
            f"loadtest: no baseline is written, the noise is more than {GUARD_NOISE_MAX:.0%} ({', '.join(loud)}): "
            "something else keeps this machine busy."
        )
    document = {
        "scenario": f"{GUARD_SCENARIO} {GUARD_MODE}, {GUARD_OURS}",
        "ratios": known,
        "how": f"{len(runs)} runs one after the other, each {rounds} interleaved rounds of {seconds} s; "
        "a run's ratio is the median of its rounds' ratios. "
        f"ratio: median of the runs. noise: {figures.NOISE_FACTOR:g} times the largest relative distance of a run "
        "from that median, "
        f"at least {figures.NOISE_FLOOR:.0%}.",
        "date": results["date"],
        "commit": results["commit"],
        "machine": results["machine"],
        "versions": results["versions"],
    }
    write(BASELINE, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return 0
