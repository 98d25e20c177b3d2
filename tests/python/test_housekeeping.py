"""What operators ask of a server around its work: a pid file, another user, a umask, variables, a daemon, systemd."""

import contextlib
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

import pytest
import requests
from serving import BUGS, CLIENT_S, EXAMPLES, HOOPSNAKE, START_S, STOP_S, clean_environment, eventually, serving

APPLICATION = """
import json
import os
import sys
from wsgiref.validate import validator

LEFT_AT_IMPORT = sorted(name for name in os.environ if name.startswith(("NOTIFY_", "WATCHDOG_", "LISTEN_")))


@validator
def application(environ, start_response):
    if environ["PATH_INFO"] == "/write":
        open(environ["QUERY_STRING"], "w").close()
    print("printed", file=sys.stderr)
    body = json.dumps({
        "pid": os.getpid(),
        "left": LEFT_AT_IMPORT,
        "environment": dict(os.environ),
        "stdin": os.readlink("/proc/self/fd/0"),
    }).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""

NOBODY = pwd.getpwnam("nobody")
AS_NOBODY = {"user": NOBODY.pw_uid, "group": NOBODY.pw_gid, "extra_groups": []}


def why_not_as_nobody():
    if os.geteuid() != 0:
        return "only root can become somebody else"
    # A Python in root's home, for instance.
    command = [sys.executable, "-c", "import json, hoopsnake._core; print(json.__file__)"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, **AS_NOBODY)
    except OSError:
        return "another user can't run this Python"
    return None if done.stdout.strip() == json.__file__ else "another user can't read this Python"


root_only = pytest.mark.skipif(why_not_as_nobody() is not None, reason=str(why_not_as_nobody()))


@pytest.fixture
def folder():
    """A folder with the application in it, which every user may read."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="hoopsnake-house-"))
    path.chmod(0o755)
    (path / "site_of_mine.py").write_text(APPLICATION)
    yield path
    # A daemon that a failed test has left.
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((path / "site.pid").read_text()), signal.SIGKILL)
    shutil.rmtree(path)


def house(driver, folder, *arguments, **keywords):
    return serving(driver, "site_of_mine", *arguments, cwd=folder, **keywords)


def get(server, path="/"):
    answer = requests.get(server.url + path, timeout=CLIENT_S)
    assert answer.status_code == 200
    return answer.json()


def run(folder, *arguments, environment=()):
    """A server that ends by itself."""
    command = [HOOPSNAKE, "--http-socket", "127.0.0.1:0", *arguments, "site_of_mine"]
    environment = {**clean_environment(), **dict(environment)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=START_S)


def refused(folder, *arguments, says):
    """It doesn't start, nor would it with --check: one sentence, exit status 1."""
    for more in ((), ("--check",)):
        done = run(folder, *arguments, *more)
        assert done.returncode == 1, done.stderr
        assert says in done.stderr.strip().splitlines()[-1], done.stderr
        assert "Traceback" not in done.stderr


def status_of(pid, field):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return re.search(rf"^{field}:\s*(.*)$", text, re.MULTILINE)[1].split()


def family(pid):
    """A process and all that descend from it."""
    found = [pid]
    for each in found:
        for task in pathlib.Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


# --- The pid file -------------------------------------------------------------------------------


def test_pid_file(folder, driver):
    path = folder / "site.pid"
    with house(driver, folder, "--pid", "site.pid") as server:
        assert path.read_text() == f"{server.process.pid}\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        refused(folder, "--pid", str(path), says=f"its server, process {server.process.pid}, runs already")
        assert path.read_text() == f"{server.process.pid}\n"
    assert not path.exists()


def test_pid_file_of_a_server_that_was_killed(folder):
    path = folder / "site.pid"
    with house("epoll", folder, "--pid", str(path)) as server:
        killed = path.read_text()
        server.process.kill()
        server.process.wait()
        server.process.send_signal = lambda _: None
        server.process.wait = lambda _: 0
    assert path.read_text() == killed
    with house("epoll", folder, "--pid", str(path)) as server:
        assert path.read_text() == f"{server.process.pid}\n"
    assert not path.exists()


def test_pid_file_that_is_not_ours(folder):
    path = folder / "site.pid"
    with house("epoll", folder, "--pid", str(path)):
        path.unlink()
        path.write_text("another's\n")
    assert path.read_text() == "another's\n"
    refused(folder, "--pid", str(path), says="isn't a pid file")
    refused(folder, "--pid", str(folder / "none" / "x.pid"), says="its directory doesn't exist")


def test_check_writes_no_pid_file(folder):
    done = run(folder, "--check", "--pid", str(folder / "site.pid"))
    assert done.returncode == 0, done.stderr
    assert f"pid file {folder / 'site.pid'}: can be written" in done.stdout
    assert not (folder / "site.pid").exists()


# --- The user -----------------------------------------------------------------------------------


@root_only
def test_user(folder, driver):
    """Every process is the user for good, and the sockets and the logs that it made are the user's."""
    given = ["--user", "nobody", "--pid", str(folder / "site.pid"), "--error-log", str(folder / "error.log")]
    unix = folder / "socket"
    flags = ["--reactor", driver, "--processes", "2", *given, "--http-socket", f"unix:{unix}"]
    command = [HOOPSNAKE, *flags, "site_of_mine"]
    server = subprocess.Popen(command, cwd=folder, env=clean_environment(), stdout=subprocess.DEVNULL)
    try:
        log = folder / "error.log"
        eventually("it is ready", lambda: log.exists() and re.search(r"\bready\b", log.read_text()))
        found = family(server.pid)
        assert len(found) >= 3
        groups = {str(gid) for gid in os.getgrouplist("nobody", NOBODY.pw_gid)}
        for pid in found:
            assert status_of(pid, "Uid") == [str(NOBODY.pw_uid)] * 4
            assert status_of(pid, "Gid") == [str(NOBODY.pw_gid)] * 4
            assert set(status_of(pid, "Groups")) == groups
            for field in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
                assert int(status_of(pid, field)[0], 16) == 0, field
        for path in (unix, log):
            assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid), path
        assert (folder / "site.pid").stat().st_uid == 0, "scripts of root trust the number in it"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(CLIENT_S)
            client.connect(str(unix))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        environment = json.loads(answer.partition(b"\r\n\r\n")[2])["environment"]
        assert environment["HOME"] == NOBODY.pw_dir
        assert environment["USER"] == environment["LOGNAME"] == "nobody"
    finally:
        server.terminate()
        assert server.wait(STOP_S) == 0
    assert not any(bug in log.read_text() for bug in BUGS)
    # The folder is root's: the file can't be removed, so it is emptied, and the next start takes it for what it is.
    assert (folder / "site.pid").read_text() == ""
    log.unlink()
    assert run(folder, "--check", *given).returncode == 0


@root_only
def test_user_and_group_as_numbers(folder):
    with house("epoll", folder, "--user", "4711", "--group", "4712") as server:
        pid = get(server)["pid"]
        assert status_of(pid, "Uid") == ["4711"] * 4
        assert status_of(pid, "Gid") == ["4712"] * 4
        assert status_of(pid, "Groups") == ["4712"]


@root_only
def test_group_alone(folder):
    with house("epoll", folder, "--group", "4712") as server:
        assert status_of(server.process.pid, "Gid") == ["4712"] * 4
        assert status_of(server.process.pid, "Uid") == ["0"] * 4


@root_only
def test_the_application_is_loaded_as_the_user(folder):
    (folder / "site_of_mine.py").chmod(0o600)
    for more in ((), ("--check",)):
        done = run(folder, "--user", "nobody", *more)
        assert done.returncode == 1
        assert "site_of_mine" in done.stderr.splitlines()[-1]


def test_user_that_can_not_be(folder):
    refused(folder, "--user", "no-such-user-here", says="--user no-such-user-here: there is no such user on this")
    refused(folder, "--group", "no-such-group-here", says="--group no-such-group-here: there is no such group")
    refused(folder, "--user", "4711", says="give --group too")


@pytest.mark.skipif(why_not_as_nobody() is not None and os.geteuid() == 0, reason=str(why_not_as_nobody()))
def test_only_root_may_change(folder):
    command = [HOOPSNAKE, "--http-socket", "127.0.0.1:0", "--user", "root", "site_of_mine"]
    become = AS_NOBODY if os.geteuid() == 0 else {}
    done = subprocess.run(
        command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=START_S, **become
    )
    assert done.returncode == 1
    assert "only root may change to user root (0)" in done.stderr.splitlines()[-1], done.stderr


@root_only
def test_whoever_it_is_already_may_be_named(folder):
    command = [HOOPSNAKE, "--check", "--http-socket", "127.0.0.1:0", "--user", "nobody", "site_of_mine"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=START_S,
        **AS_NOBODY,
    )
    assert done.returncode == 0, done.stderr
    assert f"user nobody ({NOBODY.pw_uid}), group {NOBODY.pw_gid}: can be changed to" in done.stdout


@root_only
def test_a_log_that_the_user_can_not_open(folder):
    log = folder / "access.log"
    log.write_text("")
    log.chmod(0o600)
    says = f"--access-log {log}: user {NOBODY.pw_uid} can't open the file"
    refused(folder, "--user", "nobody", "--access-log", str(log), says=says)
    assert log.stat().st_uid == 0, "what was there keeps its owner"


# --- Umask, variables -----------------------------------------------------------------------------


def test_umask(folder, driver):
    unix = folder / "socket"
    with house(driver, folder, "--umask", "0o007", sockets=("127.0.0.1:0", f"unix:{unix}")) as server:
        get(server, f"/write?{folder}/written")
        assert stat.S_IMODE(unix.stat().st_mode) == 0o770
        assert stat.S_IMODE((folder / "written").stat().st_mode) == 0o660


def test_variables(folder, driver):
    flags = ["--env", "ONE=1", "--env=TWO=2=2", "--env", "ONE=first"]
    given = {"TWO": "0", "THREE": "3", "HOOPSNAKE_WORKERS": "2"}
    with house(driver, folder, *flags, "--env", "HOOPSNAKE_WORKERS=99", environment=given) as server:
        environment = get(server)["environment"]
        assert environment["ONE"] == "first"
        assert environment["TWO"] == "2=2"
        assert environment["THREE"] == "3"
        server.error_log.wait_for(r"workers: 2 |2 threads")


# --- Daemon ---------------------------------------------------------------------------------------


def daemon(folder, *arguments, environment=()):
    return run(folder, "--daemon", "--pid", "site.pid", *arguments, environment=environment)


@contextlib.contextmanager
def stopped_at_the_end(folder):
    pid = int((folder / "site.pid").read_text())
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually("it ends", lambda: not pathlib.Path(f"/proc/{pid}").exists() or status_of(pid, "State")[0] == "Z")
    assert not (folder / "site.pid").exists()


def test_daemon(folder, driver):
    """The command comes back when the server is ready; no terminal, no zombie, no descriptor of the caller's."""
    logs = ["--error-log", "error.log", "--access-log", "access.log"]
    done = daemon(folder, "--reactor", driver, *logs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with stopped_at_the_end(folder) as pid:
        log = (folder / "error.log").read_text()
        assert re.search(r"\bready\b", log)
        url = re.search(r"http://127\.0\.0\.1:\d+", log)[0]
        answer = requests.get(url, timeout=CLIENT_S).json()
        for each in family(pid):
            line = pathlib.Path(f"/proc/{each}/stat").read_text().rpartition(") ")[2].split()
            state, terminal = line[0], int(line[4])
            assert state not in "ZX"
            assert terminal == 0
            for number in (0, 1, 2):
                assert os.readlink(f"/proc/{each}/fd/{number}") == "/dev/null"
            pipes = [os.readlink(path) for path in pathlib.Path(f"/proc/{each}/fd").iterdir()]
            assert not any(path == f"pipe:[{os.fstat(sys.stdout.fileno()).st_ino}]" for path in pipes)
        assert answer["stdin"] == "/dev/null"
        session = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[3])
        assert session != os.getsid(0)
        assert session != pid, "it leads no session, so it can't come by a terminal"
        assert status_of(pid, "PPid") != [str(os.getpid())]
    text = (folder / "error.log").read_text()
    assert "stopped" in text
    assert not any(bug in text for bug in BUGS), text


def test_daemon_on_a_terminal_leaves_it(folder):
    """Logs to standard streams: what is said until it is ready is seen, then every process lets go of the terminal."""
    master, slave = os.openpty()
    flags = ["--daemon", "--pid", "site.pid", "--http-socket", "127.0.0.1:0", "--processes", "2"]
    command = [HOOPSNAKE, *flags, "site_of_mine"]
    starter = subprocess.Popen(
        command, cwd=folder, env=clean_environment(), stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    name = os.ttyname(slave)
    os.close(slave)
    assert starter.wait(START_S) == 0
    with stopped_at_the_end(folder) as pid:
        said = os.read(master, 65536).decode()
        assert re.search(r"\bready\b", said)
        assert "goes nowhere once it is ready" in said, "nobody will read its error log"
        url = re.search(r"http://127\.0\.0\.1:\d+", said)[0]
        assert requests.get(url, timeout=CLIENT_S).status_code == 200
        for each in family(pid):
            held = [os.readlink(path) for path in pathlib.Path(f"/proc/{each}/fd").iterdir()]
            assert name not in held, held
    os.close(master)


def test_daemon_that_does_not_start(folder):
    done = daemon(folder, "--user", "no-such-user-here")
    assert done.returncode == 1
    assert "there is no such user" in done.stderr
    (folder / "site_of_mine.py").write_text("raise RuntimeError('the settings are missing')\n")
    done = daemon(folder)
    assert done.returncode == 1
    assert "the settings are missing" in done.stderr
    assert "Traceback" in done.stderr
    assert not (folder / "site.pid").exists()
    done = daemon(folder, "--error-log", "error.log")
    assert done.returncode == 1
    assert "error.log says why" in done.stderr
    assert "the settings are missing" in (folder / "error.log").read_text()
    assert daemon(folder, "--workers", "0").returncode == 2


def test_daemon_that_nobody_waits_for(folder):
    """Whoever ends the command before the server is ready has cancelled the start."""
    (folder / "site_of_mine.py").write_text(
        "import os, time\n"
        "open('loading', 'w').close()\n"
        "while not os.path.exists('go'):\n    time.sleep(0.01)\n" + APPLICATION
    )
    command = [HOOPSNAKE, "--daemon", "--pid", "site.pid", "--http-socket", "127.0.0.1:0", "--error-log", "error.log"]
    starter = subprocess.Popen([*command, "site_of_mine"], cwd=folder, env=clean_environment())
    eventually("it is loading", lambda: (folder / "loading").exists())
    starter.kill()
    starter.wait()
    (folder / "go").touch()
    eventually("it has stopped", lambda: "stopped" in (folder / "error.log").read_text())
    eventually("its file is gone", lambda: not (folder / "site.pid").exists())
    assert "--daemon: the command that started the server was ended" in (folder / "error.log").read_text()


# --- systemd --------------------------------------------------------------------------------------


class Systemd:
    """What NOTIFY_SOCKET leads to."""

    def __init__(self, address, name):
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(START_S)

    def next(self, skipping=("WATCHDOG", "STATUS")):
        while True:
            message = self._socket.recv(4096).decode()
            fields = dict(line.split("=", 1) for line in message.splitlines())
            if next(iter(fields)) not in skipping:
                return fields

    def close(self):
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request, folder):
    if request.param == "path":
        made = Systemd(str(folder / "notify"), str(folder / "notify"))
    else:
        name = f"hoopsnake-test-{os.getpid()}-{id(folder)}"
        made = Systemd("\0" + name, "@" + name)
    yield made
    made.close()


def test_systemd_is_told(folder, driver, systemd):
    given = {"NOTIFY_SOCKET": systemd.name, "WATCHDOG_USEC": "400000"}
    with house(driver, folder, "--processes", "2", environment=given) as server:
        ready = systemd.next()
        assert ready["READY"] == "1"
        assert ready["MAINPID"] == str(server.process.pid)
        assert "2 process" in ready["STATUS"]
        assert get(server)["left"] == []
        assert "NOTIFY_SOCKET" not in get(server)["environment"]
        for _ in range(3):
            assert systemd.next(skipping=("STATUS",)) == {"WATCHDOG": "1"}
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        server.process.send_signal(signal.SIGHUP)
        reloading = systemd.next()
        assert reloading["RELOADING"] == "1"
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert systemd.next()["READY"] == "1"
    assert systemd.next()["STOPPING"] == "1"


def test_systemd_without_a_supervisor(folder, driver, systemd):
    given = {"NOTIFY_SOCKET": systemd.name, "WATCHDOG_USEC": "400000"}
    with house(driver, folder, "--no-supervisor", environment=given) as server:
        assert systemd.next()["MAINPID"] == str(server.process.pid)
        assert get(server)["left"] == []
        for _ in range(3):
            assert systemd.next(skipping=("STATUS",)) == {"WATCHDOG": "1"}
    assert systemd.next()["STOPPING"] == "1"


def test_watchdog_of_another_process(folder, systemd):
    given = {"NOTIFY_SOCKET": systemd.name, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    with house("epoll", folder, environment=given):
        assert systemd.next(skipping=())["READY"] == "1"
    assert systemd.next(skipping=("STATUS",))["STOPPING"] == "1", "no sign of life in between"


def test_a_systemd_that_can_not_be_told(folder):
    with house("epoll", folder, environment={"NOTIFY_SOCKET": "relative/path"}) as server:
        server.error_log.wait_for("NOTIFY_SOCKET=relative/path: can't be used")
        assert get(server)["left"] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_unit_files(folder):
    """They are as systemd wants them, and their command is understood."""
    for unit in ("hoopsnake.service", "hoopsnake.socket"):
        text = (EXAMPLES / unit).read_text().replace("/srv/mysite/.venv/bin/hoopsnake", HOOPSNAKE)
        (folder / unit).write_text(text)
    units = [folder / "hoopsnake.service", folder / "hoopsnake.socket"]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=CLIENT_S)
    assert (done.returncode, done.stderr) == (0, "")
    arguments = re.search(r"^ExecStart=\S+ (.*)$", units[0].read_text(), re.MULTILINE)[1].split()
    (folder / "mysite").mkdir()
    (folder / "mysite" / "wsgi.py").write_text(APPLICATION)
    command = [HOOPSNAKE, "--check", "--http-socket", "127.0.0.1:0", *arguments]
    done = subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=START_S)
    assert done.returncode == 0, done.stderr
