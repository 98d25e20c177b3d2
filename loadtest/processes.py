"""Processes of one measurement: start in a session of their own, look at through /proc, stop by pid.

Knows nothing of scenarios or servers, and never touches a process that it didn't start.
"""

import contextlib
import os
import resource
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 3.0
LOG_LINES_SHOWN = 15


@dataclass(frozen=True)
class Stat:
    """The fields of /proc/PID/stat (proc(5)) that are used here."""

    pid: int
    parent: int
    session: int
    cpu_ticks: int  # user + system, and those of children that were waited for
    started: int = 0  # ticks since boot; with the pid it names a process for good
    ended: bool = False  # a zombie


def parse_stat(text):
    """One line of /proc/PID/stat. The command may hold spaces and `)`, so fields are counted from the last one."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Stat(
        pid=int(head.split(" ", 1)[0]),
        parent=int(fields[1]),
        session=int(fields[3]),
        cpu_ticks=sum(int(fields[index]) for index in range(11, 15)),
        started=int(fields[19]),
        ended=fields[0] in ("Z", "X"),
    )


def tree_of(root, stats):
    """The stats that belong to `root`: itself, its session and all descendants of either."""
    members = {stat.pid for stat in stats if stat.pid == root or stat.session == root}
    grown = True
    while grown:
        found = {stat.pid for stat in stats if stat.parent in members} - members
        members |= found
        grown = bool(found)
    return [stat for stat in stats if stat.pid in members]


def all_stats():
    """A Stat for each process alive now; one that ends while it is read is left out."""
    stats = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stats.append(parse_stat(Path(f"/proc/{entry}/stat").read_text()))
    return stats


def parse_status_kib(text, field):
    """`VmRSS` or `VmHWM` of /proc/PID/status in KiB; 0 where there is none (a zombie)."""
    for line in text.splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def parse_busy_ticks(text):
    """Ticks the whole machine was not idle, from /proc/stat: user, nice, system, irq, softirq, steal."""
    fields = [int(field) for field in text.splitlines()[0].split()[1:9]]
    return fields[0] + fields[1] + fields[2] + fields[5] + fields[6] + fields[7]


def machine_busy_seconds():
    """CPU seconds all processors together were busy since boot."""
    return parse_busy_ticks(Path("/proc/stat").read_text()) / TICKS_PER_SECOND


def nofile_to_hard_limit():
    """Raise the soft descriptor limit as far as it goes; children inherit it. Returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Child:
    """A process in its own session, so that all it starts can be found and ended with it."""

    def __init__(self, command, *, environment=None, folder=None, stdout=None, stderr=None, stdin=None):
        self.command = command
        self.process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            text=True,
        )
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def alive(self):
        """Whether the first process still runs."""
        return self.process.poll() is None

    def members(self):
        """Stats of the whole tree."""
        return tree_of(self.pid, all_stats())

    def cpu_seconds(self):
        """User + system time of the whole tree since it started."""
        return sum(stat.cpu_ticks for stat in self.members()) / TICKS_PER_SECOND

    def memory_kib(self):
        """Sum over the tree of resident memory now and of each process's highest; shared pages count in each."""
        now = peak = 0
        for stat in self.members():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{stat.pid}/status").read_text()
                now += parse_status_kib(text, "VmRSS")
                peak += parse_status_kib(text, "VmHWM")
        return now, peak

    def threads(self):
        """Threads of the whole tree."""
        count = 0
        for stat in self.members():
            with contextlib.suppress(OSError):
                count += len(os.listdir(f"/proc/{stat.pid}/task"))
        return count

    def affinity(self):
        """The sets of processors that the tree's threads may run on, as /proc writes them ("0", "0-1")."""
        found = set()
        for stat in self.members():
            with contextlib.suppress(OSError):
                for thread in os.listdir(f"/proc/{stat.pid}/task"):
                    text = Path(f"/proc/{stat.pid}/task/{thread}/status").read_text()
                    line = next((line for line in text.splitlines() if line.startswith("Cpus_allowed_list:")), None)
                    if line:
                        found.add(line.split()[1])
        return sorted(found)

    def stop(self):
        """SIGTERM to the first process, SIGKILL to whatever of the tree is left; returns when nothing is."""
        members = {(stat.pid, stat.started) for stat in self.members()}
        if self.alive():
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)

        def left():
            return [
                stat
                for stat in all_stats()
                if not stat.ended and (stat.session == self.pid or (stat.pid, stat.started) in members)
            ]

        for stat in left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(stat.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        wait_until(lambda: not left(), STOP_SECONDS)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


def last_lines(path, count=LOG_LINES_SHOWN):
    """The end of a log file, indented; a sentence where it is empty."""
    text = Path(path).read_text(errors="replace").strip() if Path(path).exists() else ""
    if not text:
        return "    (its log is empty)"
    return "\n".join("    " + line for line in text.splitlines()[-count:])


def wait_until(condition, seconds, step=0.02):
    """Poll `condition` until it is true or the time is up; returns its last value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        # What is waited for (an answer, the end of a process that may be nobody's child here) gives no sign.
        time.sleep(step)
