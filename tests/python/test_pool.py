"""The elastic pool (--max-workers) with handlers that wait, that compute, and that do both."""

import concurrent.futures
import http.client
import re
import signal
import time

import httpx
import pytest
from serving import APPLICATIONS, CLIENT_S, serving

CONNECTIONS = 60


def load(server, path, seconds):
    """How many workers each answer counted, of all connections, asked again and again for a while."""
    until = time.monotonic() + seconds

    def ask(_):
        counts = []
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=CLIENT_S)
        while time.monotonic() < until:
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 200
            counts.append(int(response.read()))
        connection.close()
        return counts

    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as threads:
        return [count for counts in threads.map(ask, range(CONNECTIONS)) for count in counts]


def pool(*flags, driver="auto"):
    return serving(driver, "pool:application", "--access-log", "off", *flags, cwd=APPLICATIONS)


def statistics(server):
    since = server.access_log.mark()
    server.process.send_signal(signal.SIGUSR2)
    match = server.access_log.wait_for(r"^1: Workers: (\d+) ", since)
    return int(match[1])


def test_a_sleeping_application_gets_the_workers_it_can_use(driver):
    with pool("--workers", "2", "--max-workers", "48", driver=driver) as server:
        counts = load(server, "/sleeping", 3)
        assert max(counts) == 48, "it grows as far as it may"
        assert statistics(server) == 48


def test_a_computing_application_stays_with_what_it_has():
    with pool("--workers", "4", "--max-workers", "48") as server:
        assert max(load(server, "/computing", 3)) <= 8


def test_a_mixed_application_grows_as_far_as_the_gil_is_idle():
    # Ten of these use the GIL up.
    with pool("--workers", "2", "--max-workers", "48") as server:
        assert 3 <= max(load(server, "/mixed", 3)) <= 40


def test_workers_is_a_hard_cap_without_max_workers():
    with pool("--workers", "2") as server:
        assert max(load(server, "/sleeping", 2)) == 2


@pytest.mark.parametrize(("most", "threads"), [("1", b"0"), ("2", b"1")])
def test_wsgi_multithread_counts_the_workers_that_there_may_be(most, threads):
    with pool("--workers", "1", "--max-workers", most) as server:
        assert httpx.get(server.url + "/?threads", timeout=CLIENT_S).content == threads


def test_it_shrinks_again_and_serves_on():
    with pool("--workers", "2", "--max-workers", "24") as server:
        assert max(load(server, "/sleeping", 2)) == 24
        until = time.monotonic() + 3 * CLIENT_S
        while statistics(server) > 2:
            assert time.monotonic() < until, "nobody leaves"
            # Each look has the server write its figures, and they leave one by one.
            time.sleep(1)
        since = server.access_log.mark()
        server.process.send_signal(signal.SIGUSR2)
        assert server.access_log.wait_for(r"^1: Workers ended after idling: (\d+)", since)[1] == "22"
        # One more where the machine is so busy that requests wait though nobody has the GIL.
        assert max(load(server, "/", 0.2)) < 8
        assert max(load(server, "/sleeping", 2)) == 24, "and grows again"


def test_more_workers_at_most_than_to_begin_with():
    with pytest.raises(AssertionError, match=re.escape("'2' is less than --workers, which is 4 (command line)")):
        with pool("--workers", "4", "--max-workers", "2"):
            pass


STORM_S = 0.02
STORM_REQUESTS = 10_000
STORM_WORKERS = 16


def test_a_storm_of_requests_that_end_at_their_deadline():
    """Each of them sees the exception that is meant for it, or none: 10,000 times."""
    flags = ("--workers", str(STORM_WORKERS), "--request-timeout", str(STORM_S), "--access-log", "off")
    with serving("auto", "late:application", *flags, cwd=APPLICATIONS.parents[1] / "it" / "apps") as server:

        def ask(client):
            said = []
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=CLIENT_S)
            for number in range(STORM_REQUESTS // STORM_WORKERS):
                share = 0.9 + (number * STORM_WORKERS + client) % 97 * 0.003
                connection.request("GET", f"/storm?{STORM_S},{share}")
                response = connection.getresponse()
                said.append((response.status, response.read()))
            connection.close()
            return said

        with concurrent.futures.ThreadPoolExecutor(STORM_WORKERS) as threads:
            said = [one for some in threads.map(ask, range(STORM_WORKERS)) for one in some]
        assert len(said) == STORM_REQUESTS
        assert {status for status, _ in said} <= {200, 504}
        assert not [body for _, body in said if body.startswith(b"another")]
        assert [body for _, body in said if body == b"interrupted\n"], "some were interrupted"
        assert [body for _, body in said if body == b"ended\n"], "and some were not"
        text = server.error_log.text()
        assert "an exception of another request" not in text
        assert "the application raised" not in text
