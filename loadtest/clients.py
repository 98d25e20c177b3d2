"""The load generators, wrk and oha: their command lines and their output as one `Load`.

Parsing is pure; running is `run_client`, which bounds the client in time.
"""

import json
import re
import subprocess
from dataclasses import dataclass

REQUEST_TIMEOUT_SECONDS = 8
GRACE_SECONDS = 25  # beyond the asked duration, for a client that waits for slow answers
BINARY = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}


class ClientFailed(Exception):
    """The load generator ended badly or said something unknown; the message is a sentence."""


@dataclass(frozen=True)
class Load:
    """What a load generator saw."""

    requests: int
    seconds: float
    rps: float
    p50_ms: float
    p99_ms: float
    socket_errors: int  # connect, read, write, time-out
    bad_statuses: int  # answers outside 200-399
    bytes_read: int  # of answers that weren't whole when the time was over, too


def duration_ms(text):
    """`545.00us`, `1.21ms`, `2.00s` (wrk) in milliseconds."""
    match = re.fullmatch(r"([\d.]+)(us|ms|s|m|h)", text)
    if not match:
        raise ClientFailed(f"wrk printed a duration that isn't one: {text!r}.")
    return float(match[1]) * UNITS_MS[match[2]]


def parse_wrk(text):
    """The summary of `wrk --latency`. Its percentiles are corrected for coordinated omission by wrk itself."""
    total = re.search(r"^\s*(\d+) requests in ([\d.]+\w+), ([\d.]+)([KMGT]?)B read", text, re.M)
    rate = re.search(r"^Requests/sec:\s*([\d.]+)", text, re.M)
    percentiles = dict(re.findall(r"^\s+(\d+(?:\.\d+)?)%\s+([\d.]+\w+)\s*$", text, re.M))
    if not total or not rate or "50" not in percentiles or "99" not in percentiles:
        raise ClientFailed(f"wrk's output has no summary: {text.strip()[-300:]!r}.")
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Load(
        requests=int(total[1]),
        seconds=duration_ms(total[2]) / 1000,
        rps=float(rate[1]),
        p50_ms=duration_ms(percentiles["50"]),
        p99_ms=duration_ms(percentiles["99"]),
        socket_errors=sum(int(count) for count in errors.groups()) if errors else 0,
        bad_statuses=int(bad[1]) if bad else 0,
        bytes_read=round(float(total[3]) * BINARY[total[4]]),
    )


def parse_oha(text):
    """The JSON of `oha --output-format json`. Requests cut off by the end of the run are neither answers nor errors."""
    try:
        document = json.loads(text)
        statuses = {int(status): count for status, count in document["statusCodeDistribution"].items()}
        percentiles = document["latencyPercentiles"]
        seconds = document["summary"]["total"]
        bytes_read = document["summary"]["totalData"]
    except (ValueError, KeyError) as error:
        raise ClientFailed(f"oha's output isn't the JSON expected ({error}): {text.strip()[:300]!r}.") from error
    failures = {name: count for name, count in document.get("errorDistribution", {}).items() if "deadline" not in name}
    answers = sum(statuses.values())
    return Load(
        requests=answers,
        seconds=seconds,
        rps=answers / seconds if seconds else 0.0,
        p50_ms=(percentiles.get("p50") or 0.0) * 1000,
        p99_ms=(percentiles.get("p99") or 0.0) * 1000,
        socket_errors=sum(failures.values()),
        bad_statuses=sum(count for status, count in statuses.items() if not 200 <= status < 400),
        bytes_read=bytes_read,
    )


def wrk_command(wrk, url, connections, seconds, threads, script=None, arguments=()):
    """One wrk run with its latency distribution. `arguments` are the script's."""
    command = [wrk, f"-t{min(threads, connections)}", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["--timeout", f"{REQUEST_TIMEOUT_SECONDS}s"]
    if script:
        command += ["-s", str(script)]
    return [*command, url, *(["--", *arguments] if arguments else [])]


def oha_command(oha, url, connections, seconds, body_path=None, rate=None):
    """One oha run; a POST of the file where one is given; at most `rate` requests a second."""
    command = [oha, "-z", f"{seconds}s", "-c", str(connections), "-t", f"{REQUEST_TIMEOUT_SECONDS}s"]
    command += ["--no-tui", "--output-format", "json"]
    if rate:
        command += ["-q", str(rate)]
    if body_path:
        command += ["-m", "POST", "-D", str(body_path)]
    return [*command, url]


def run_client(start, command, seconds):
    """Run a load generator to its end. `start` makes a Child of the command. Returns what it printed."""
    with start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            output, complaint = child.process.communicate(timeout=seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ClientFailed(f"{command[0]} didn't end within {seconds + GRACE_SECONDS} s.") from error
        if child.process.returncode:
            raise ClientFailed(
                f"{command[0]} ended with {child.process.returncode}: {(complaint or output).strip()[-300:]}"
            )
        return output
