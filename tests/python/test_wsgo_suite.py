"""What wsgo's own tests ask of a server, asked of this one: the same cases, written anew, of one application."""

import hashlib
import itertools
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from serving import APPLICATIONS, CLIENT_S, HOOPSNAKE, MIB, random_bytes, serving

from hoopsnake import _core

HELP = subprocess.run([HOOPSNAKE, "--help"], capture_output=True, text=True, timeout=CLIENT_S).stdout


def needs(there, what):
    """Expects a failure as long as the server can't do it, and insists on it once it can."""
    return pytest.mark.xfail(not there, reason=f"no {what} yet", strict=True, raises=AssertionError)


caching = needs("--max-age" in HELP, "response cache")
blocking = needs("--max-age" in HELP, "blocking of clients")
parking = needs(hasattr(_core, "notify_parked"), "parking")
interrupting = needs("--max-workers" in HELP, "exception at the time-out")


@pytest.fixture
def serve(driver):
    def serve(*arguments):
        return serving(driver, "wsgo_suite", *arguments, cwd=APPLICATIONS)

    return serve


def get(server, path, **keywords):
    return requests.get(server.url + path, timeout=CLIENT_S, **keywords)


def test_get(serve):
    with serve("--process", "1") if "--process " in HELP else serve() as server:
        assert get(server, "/").status_code == 200


def test_post(serve):
    fields = {"key1": "value1 \U0001f600", "key2\U0001f600": "value2"}
    with serve() as server:
        sent = requests.Request("POST", server.url + "/", data=fields).prepare()
        answer = requests.Session().send(sent, timeout=CLIENT_S)
    assert answer.status_code == 200
    assert answer.text == hashlib.sha256(sent.body.encode()).hexdigest()


def test_huge_post(serve):
    with serve() as server:
        request = requests.Request(
            "POST", server.url + "/", data={"key": "value"}, files={"upload": random_bytes(10 * MIB)}
        )
        sent = request.prepare()
        answer = requests.Session().send(sent, timeout=CLIENT_S)
    assert answer.status_code == 200
    assert answer.text == hashlib.sha256(sent.body).hexdigest()


def test_repeated_headers(serve):
    with serve() as server:
        assert get(server, "/").cookies.get_dict() == {f"cookie{number}": f"value{number}" for number in (1, 2, 3)}


def test_threading(serve):
    def length(_):
        with get(server, "/output/", stream=True) as answer:
            return sum(map(len, answer.iter_content(MIB)))

    with serve() as server, ThreadPoolExecutor(16) as clients:
        assert list(clients.map(length, range(16))) == [50_000_000] * 16


@caching
def test_caching(serve):
    with serve("--max-age", "60") if "--max-age" in HELP else serve() as server:
        first = get(server, "/number/").text
        assert get(server, "/number/").text == first
        other = get(server, "/number/", headers={"Cookie": "asdf=dsfg"}).text
        assert other != first
        assert get(server, "/number/", headers={"Cookie": "asdf=dsfg"}).text == other


def test_atexit(serve):
    with serve() as server:
        get(server, "/")
    assert "atexit was called" in server.access_log.text()


def test_timeout(serve):
    def status(path):
        return get(server, path).status_code

    with serve("--request-timeout", "3", "--graceful-timeout", "1") as server, ThreadPoolExecutor(15) as clients:
        paths = ["/endless/"] * 5 + ["/wait/"] * 10
        # wsgo answers 502 here.
        assert list(clients.map(status, paths)) == [504] * 5 + [200] * 10


@interrupting
def test_exception_at_the_timeout(serve):
    with serve("--request-timeout", "1", "--graceful-timeout", "1") as server:
        assert get(server, "/endless/").status_code == 504
        server.access_log.wait_for("interrupted")


def test_response_close(serve):
    with serve() as server:
        assert [get(server, "/close/").text for _ in range(3)] == ["0", "1", "2"]


def test_thread_local(serve):
    with serve("--workers", "1") as server:
        assert [get(server, "/local/").text for _ in range(3)] == ["1", "2", "3"]


def test_logging_deadlock(serve):
    """Handlers that are interrupted while they wait for `logging`'s lock don't keep it from everybody else."""

    def status(_):
        return get(server, "/slow-log/").status_code

    with serve("--request-timeout", "2") as server, ThreadPoolExecutor(5) as clients:
        assert sorted(clients.map(status, range(5))) == [200, 504, 504, 504, 504]
        # Until the last of those that nobody waits for any more has had its turn.
        end = time.monotonic() + CLIENT_S
        while get(server, "/log/").status_code != 200:
            assert time.monotonic() < end


def test_environ_encoding(serve):
    with serve() as server:
        answer = get(server, "/echo/Božja")
    assert answer.content == "/echo/Božja".encode()


def test_jobs_are_registered(serve):
    with serve() as server:
        server.error_log.wait_for(r"background: wsgo_suite\.at_three \(cron 0 3 -1 -1 -1\) runs next at \S+ 03:00:00 ")
        server.error_log.wait_for(r"background: wsgo_suite\.every_hour \(timer 3600 s\) runs next at ")


def parked(server, clients):
    """A request that is parked, or will be before anything else can reach it."""
    answer = clients.submit(get, server, "/park/park")
    server.access_log.wait_for("parking")
    return answer


@parking
def test_park_notify(serve):
    with serve() as server, ThreadPoolExecutor(1) as clients:
        answer = parked(server, clients)
        # Had this woken it, it would be a 504.
        assert get(server, "/notify/wrong").status_code == 200
        assert get(server, "/notify/204").status_code == 200
        assert answer.result(CLIENT_S).status_code == 204


@parking
def test_park_notify_retry(serve):
    with serve() as server, ThreadPoolExecutor(1) as clients:
        answer = parked(server, clients)
        assert get(server, "/notify/retry").status_code == 200
        assert (answer.result(CLIENT_S).status_code, answer.result().text) == (200, "retry_arg")


# Public addresses, as a proxy on the loopback interface passes them on: others are never blocked.
CLIENT = {"X-Forwarded-For": "1.2.3.4"}
OTHER = {"X-Forwarded-For": "1.2.3.5"}


@blocking
def test_block(serve):
    with serve() as server:
        assert get(server, "/", headers=CLIENT).status_code == 200
        answer = get(server, "/block/", headers=CLIENT)
        assert answer.status_code == 200
        assert "X-WSGo-Block" not in answer.headers
        assert get(server, "/", headers=CLIENT).status_code == 429
        statuses = (get(server, "/", headers=CLIENT).status_code for _ in itertools.count())
        assert next(status for status in statuses if status != 429) == 200


@blocking
def test_block_without_deadlock(serve):
    """Many clients that are held keep nobody else waiting, whatever the number of workers."""
    with serve("--workers", "2") as server, ThreadPoolExecutor(20) as clients:
        assert get(server, "/block/", headers=CLIENT).status_code == 200
        begun = threading.Semaphore(0)

        def held(_):
            begun.release()
            return get(server, "/", headers=CLIENT).status_code

        answers = [clients.submit(held, number) for number in range(20)]
        for _ in answers:
            begun.acquire()
        assert [get(server, "/", headers=OTHER).status_code for _ in range(10)] == [200] * 10
        assert 429 in [answer.result(CLIENT_S) for answer in answers]
