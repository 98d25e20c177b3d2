"""A running `hoopsnake` for the tests: started on port 0, ready when it says so, stopped by SIGTERM and then judged.

Nothing here waits for a fixed time: a thread reads what the process writes, and whoever waits is woken by a line. What
gives no sign when it changes (a file, a process that ends) is looked at until it has (`eventually`).
"""

import contextlib
import hashlib
import os
import pathlib
import re
import signal
import subprocess
import sysconfig
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
APPLICATIONS = pathlib.Path(__file__).resolve().parent / "applications"
HOOPSNAKE = os.path.join(sysconfig.get_path("scripts"), "hoopsnake")

# For every call of a client: far more than it needs, so that only what hangs is cut.
CLIENT_S = 30
START_S = 60
STOP_S = 45
# What must never be in an error log: a panic of Rust, and the server's own word for a broken invariant.
BUGS = ("panicked", "a bug in hoopsnake")
KIB = 1024
MIB = 1024 * 1024


class Lines:
    """What a process writes to one pipe, line by line."""

    def __init__(self, stream, name):
        self._stream = stream
        self._lines = []
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name=f"reads {name}", daemon=True)
        self._thread.start()

    def _read(self):
        with self._stream:
            for line in self._stream:
                with self._changed:
                    self._lines.append(line.decode("utf-8", "backslashreplace").rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def mark(self):
        """How many lines there are: a place for `wait_for` and `text` to begin at."""
        with self._changed:
            return len(self._lines)

    def text(self, since=0):
        with self._changed:
            return "\n".join(self._lines[since:])

    def wait_for(self, pattern, since=0, timeout=CLIENT_S):
        """The first line from `since` on in which the regular expression is found; its match."""

        def found():
            matches = (re.search(pattern, line) for line in self._lines[since:])
            return next((match for match in matches if match), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, timeout)
            match = found()
        assert match, f"no line with {pattern!r} came:\n{self.text(since)}"
        return match

    def join(self):
        self._thread.join(STOP_S)


class Server:
    """`hoopsnake` with an application.

    `sockets` are given as --http-socket; `url` and `port` are those of the first TCP one.
    """

    def __init__(self, driver, application, *arguments, cwd, sockets=("127.0.0.1:0",), environment=()):
        command = [HOOPSNAKE, "--reactor", driver, *arguments]
        for socket in sockets:
            command += ["--http-socket", socket]
        self.process = subprocess.Popen(
            [*command, application],
            cwd=cwd,
            env={**clean_environment(), **dict(environment)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.access_log = Lines(self.process.stdout, "the access log")
        self.error_log = Lines(self.process.stderr, "the error log")
        self.url = None
        try:
            self.error_log.wait_for(r"\bready\b", timeout=START_S)
            found = re.search(r"http://127\.0\.0\.1:(\d+)", self.error_log.text())
            if found:
                self.url, self.port = found[0], int(found[1])
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def serving(self):
        """The processes that serve: the supervisor's children."""
        found = []
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == self.process.pid and state != "Z":
                found.append(int(stat.parent.name))
        return sorted(found)

    def resident_bytes(self):
        """Resident memory of the one process that serves (proc(5), VmRSS)."""
        (pid,) = self.serving()
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * KIB

    def stop(self):
        """SIGTERM; then it must end with status 0, and must not have written of a bug of its own."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it didn't stop within {STOP_S} s:\n{self.error_log.text()}") from None
        self.error_log.join()
        self.access_log.join()
        text = self.error_log.text()
        assert status == 0, f"exit status {status}:\n{text}"
        for bug in BUGS:
            assert bug not in text, text


@contextlib.contextmanager
def serving(driver, application, *arguments, **keywords):
    """A `Server` for a while; stopped, and judged, at the end."""
    server = Server(driver, application, *arguments, **keywords)
    try:
        yield server
    finally:
        server.stop()


def eventually(what, look):
    """What `look` finds, looked for until it is there; fails, saying `what` was waited for, when patience ends."""
    until = time.monotonic() + CLIENT_S
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        # Nobody tells of it: between two looks others run.
        time.sleep(0.02)
    raise AssertionError(f"waited in vain: {what}")


def clean_environment():
    """The environment without anything that would configure a server or an example site."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("HOOPSNAKE_", "DJANGO_"))}


def curl(*arguments, data=None):
    """What curl prints; raises if it fails."""
    command = ["curl", "--silent", "--show-error", "--max-time", str(CLIENT_S), *arguments]
    done = subprocess.run(command, input=data, capture_output=True, timeout=2 * CLIENT_S)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def random_bytes(size):
    """Always the same ones, and nothing repeats: what is lost, doubled or out of place changes the digest."""
    return hashlib.shake_128(b"hoopsnake").digest(size)


def sha256(data):
    return hashlib.sha256(data).hexdigest()
