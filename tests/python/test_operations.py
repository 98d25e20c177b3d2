"""What operators meet at night: closed streams, a crash, a process that doesn't end, a limit that is too low."""

import contextlib
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys

import pytest
import requests
from serving import CLIENT_S, HOOPSNAKE, START_S, STOP_S, Lines, clean_environment, eventually, serving

APPLICATION = """
import ctypes
import os
import sys
from wsgiref.validate import validator


@validator
def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hold":
        # Arrived; goes on when somebody opens the other end.
        open(environ["QUERY_STRING"], "rb").read()
    if path == "/crash":
        ctypes.string_at(0)
    print("printed")
    print("printed", file=sys.stderr)
    body = "\\n".join(os.readlink(f"/proc/self/fd/{number}") for number in range(3)).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "site_of_mine.py").write_text(APPLICATION)
    yield tmp_path
    # A daemon that a failed test has left.
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((tmp_path / "site.pid").read_text()), signal.SIGKILL)


@contextlib.contextmanager
def daemon(folder, *arguments):
    """A server in the background with its logs in files; its URL."""
    flags = ["--daemon", "--pid", "site.pid", "--error-log", "error.log", "--access-log", "off"]
    command = [HOOPSNAKE, *flags, "--http-socket", "127.0.0.1:0", *arguments, "site_of_mine"]
    subprocess.run(command, cwd=folder, env=clean_environment(), check=True, timeout=START_S)
    pid = int((folder / "site.pid").read_text())
    try:
        found = re.search(r"http://127\.0\.0\.1:\d+", (folder / "error.log").read_text())
        yield pid, found and found[0]
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually("it ends", lambda: not (folder / "site.pid").exists())


def test_streams_that_are_closed(folder, driver):
    """`>&-`: the three numbers lead nowhere, and never to a client or a log."""
    command = f"exec {HOOPSNAKE} --reactor {driver} --error-log error.log --http-socket 127.0.0.1:0 site_of_mine"
    log = folder / "error.log"
    for closed in ("<&- >&- 2>&-", ">&-", "2>&-"):
        log.unlink(missing_ok=True)
        process = subprocess.Popen(["sh", "-c", f"{command} {closed}"], cwd=folder, env=clean_environment())
        try:
            eventually("it is ready", lambda: log.exists() and re.search(r"\bready\b", log.read_text()))
            url = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())[0]
            answer = requests.get(url, timeout=CLIENT_S)
            assert answer.status_code == 200
            streams = answer.text.splitlines()
            for number, name in enumerate(("<&-", ">&-", "2>&-")):
                if name in closed.split():
                    assert streams[number] == "/dev/null"
            process.terminate()
            assert process.wait(STOP_S) == 0
        finally:
            process.kill()
            process.wait()
        assert "can't be written" not in log.read_text()


def test_a_daemon_answers_in_its_error_log(folder):
    """Standard output leads nowhere there, and a question that is asked at night wants an answer."""
    with daemon(folder, "--log-level", "error") as (pid, _):
        log = folder / "error.log"
        os.kill(pid, signal.SIGUSR1)
        eventually("stacks", lambda: "1: stacks of process" in log.read_text() and "MainThread" in log.read_text())
        os.kill(pid, signal.SIGUSR2)
        eventually("figures", lambda: "1: Request count: 0" in log.read_text())


@pytest.mark.parametrize("arguments", [[], ["--no-supervisor"]])
def test_an_import_that_waits_says_where(tmp_path, arguments):
    """SIGUSR1 is answered before anybody serves, from within a system call too; SIGUSR2 does no harm."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "waits.py").write_text(
        "print('importing', flush=True)\n"
        f"open({str(gate)!r}).close()\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return []\n"
    )
    process = subprocess.Popen(
        [HOOPSNAKE, "--http-socket", "127.0.0.1:0", *arguments, "waits"],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        stdout, stderr = Lines(process.stdout, "standard output"), Lines(process.stderr, "the error log")
        stdout.wait_for("importing")
        process.send_signal(signal.SIGUSR2)
        process.send_signal(signal.SIGUSR1)
        stdout.wait_for(r'waits\.py", line \d in <module>')
        gate.write_text("")
        stderr.wait_for(r"\bready\b", timeout=START_S)
        process.send_signal(signal.SIGUSR1)
        stdout.wait_for("1: stacks of process")
        process.terminate()
        assert process.wait(STOP_S) == 0
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def crashed(url):
    with pytest.raises(requests.ConnectionError):
        requests.get(url + "/crash", timeout=CLIENT_S)
    yield


def test_the_stacks_of_a_crash_are_in_the_error_log(folder):
    """Also after the log was rotated, and in processes that came after that."""
    log, moved = folder / "error.log", folder / "error.log.1"
    with daemon(folder) as (pid, url):
        with crashed(url):
            eventually("its stacks", lambda: "Fatal Python error: Segmentation fault" in log.read_text())
            eventually("where it was", lambda: "in application" in log.read_text())
            eventually("another", lambda: "process 1 serves" in log.read_text())
        log.rename(moved)
        os.kill(pid, signal.SIGTTIN)
        eventually("a new file", log.exists)
        # Each process looks for it once a second.
        eventually("they have looked", lambda: followed(pid, log))
        with crashed(url):
            eventually("its stacks", lambda: "Fatal Python error: Segmentation fault" in log.read_text())
        assert moved.read_text().count("Fatal Python error") == 1


def followed(pid, log):
    """Whether both processes that serve have the log open that is there now."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    held = [sum(os.path.samefile(fd, log) for fd in descriptors(child)) for child in children]
    return len(children) == 2 and min(held) >= 1


def descriptors(pid):
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        if os.path.exists(fd) and os.readlink(fd).startswith("/"):
            yield fd


def test_stacks_of_a_process_that_drains(folder, driver):
    """The process that doesn't end is the one of which the stacks are wanted."""
    gate = folder / "gate"
    os.mkfifo(gate)
    with serving(driver, "site_of_mine", cwd=folder) as server:
        command = [sys.executable, "-c", f"import urllib.request as r; r.urlopen('{server.url}/hold?{gate}').read()"]
        client = subprocess.Popen(command)
        # Opened when the application has it open: it has arrived.
        held = os.open(gate, os.O_WRONLY)
        (old,) = server.serving()
        server.process.send_signal(signal.SIGHUP)
        server.error_log.wait_for(r"reloaded: 1 new process")
        mark = server.access_log.mark()
        server.process.send_signal(signal.SIGUSR1)
        server.access_log.wait_for(rf"^1: stacks of process {old}, which is ending", since=mark)
        server.access_log.wait_for(r"GET /hold", since=mark)
        server.access_log.wait_for(r"in application", since=mark)
        server.access_log.wait_for(rf"^1: stacks of process (?!{old})\d+$", since=mark)
        server.process.send_signal(signal.SIGUSR2)
        server.access_log.wait_for(rf"^1: Process: {old}, which is ending", since=mark)
        os.close(held)
        assert client.wait(CLIENT_S) == 0


def test_an_application_that_loads_for_ever_tells_where(folder):
    (folder / "site_of_mine.py").write_text("import time\n\ndef connect():\n    time.sleep(1000)\n\nconnect()\n")
    command = [HOOPSNAKE, "--http-socket", "127.0.0.1:0", "--start-timeout", "1", "site_of_mine"]
    done = subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=START_S)
    assert done.returncode == 1
    assert "in connect" in done.stderr
    assert "was not ready after 1 s" in done.stderr.splitlines()[-1]


def test_the_limit_on_descriptors(folder, driver):
    """A connection takes one each, and the usual soft limit of 1024 is soon reached."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    command = ["prlimit", f"--nofile=1024:{hard}", HOOPSNAKE, "--reactor", driver, "--http-socket", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "site_of_mine"], cwd=folder, env=clean_environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        assert any("ready" in line for line in process.stderr)
        limits = pathlib.Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(r"Max open files\s+(\d+)", limits)[1] == str(wanted)
    finally:
        process.terminate()
        process.wait(STOP_S)
        process.stderr.close()
    done = subprocess.run(
        ["prlimit", "--nofile=16:16", *command[2:], "site_of_mine"],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    assert done.returncode == 1
    assert "ulimit -n" in done.stderr.splitlines()[-1]


def test_a_memory_limit_below_what_the_application_needs(folder):
    """It is said, and the machine isn't kept busy with loading it: the next one waits."""
    with serving("epoll", "site_of_mine", "--max-rss", "1m", cwd=folder) as server:
        server.error_log.wait_for(r"processes reach --max-rss \(1 MiB\) soon after their start.*raise it")
        assert requests.get(server.url, timeout=CLIENT_S).status_code == 200
