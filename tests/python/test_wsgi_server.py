"""What an application sees of the server, and what the server's memory does, with Python's own clients.

The application is applications/checks.py, behind wsgiref's validator.
"""

import http.client
import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import APPLICATIONS, CLIENT_S, MIB, eventually, serving

WORKERS = 4
LARGE_BYTES = 500 * MIB
GROWTH_BYTES_MAX = 20 * MIB


@pytest.fixture(scope="module")
def server(driver):
    with serving(driver, "checks", "--workers", str(WORKERS), cwd=APPLICATIONS) as running:
        yield running


def ask(server, path):
    with urllib.request.urlopen(server.url + path, timeout=CLIENT_S) as response:
        return json.load(response)


def connect(server):
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=CLIENT_S)


def test_process_as_the_application_sees_it(driver, tmp_path):
    library = tmp_path / "library"
    library.mkdir()
    arguments = ("--chdir", str(APPLICATIONS), "--pythonpath", str(library), "--workers", "3")
    with serving(driver, "checks:application", *arguments, cwd=tmp_path) as server:
        seen = ask(server, "/process")
    assert [name.rpartition("/")[2] for name in seen["argv"]] == ["hoopsnake"]
    assert seen["cwd"] == str(APPLICATIONS)
    assert seen["path"][:2] == [str(library), str(APPLICATIONS)]
    assert "" not in seen["path"]
    assert [f"hoopsnake-worker-{number}" in seen["threads"] for number in range(1, 5)] == [True, True, True, False]
    assert "MainThread" in seen["threads"]


def test_working_directory_comes_first(server):
    assert ask(server, "/process")["path"][0] == str(APPLICATIONS)


def test_workers_are_named_threads_that_run_together(server):
    path = f"/together?{WORKERS}"
    with ThreadPoolExecutor(WORKERS) as clients:
        names = [answer["name"] for answer in clients.map(lambda _: ask(server, path), range(WORKERS))]
    assert sorted(names) == [f"hoopsnake-worker-{number}" for number in range(1, WORKERS + 1)]


def test_reactors_are_pinned_and_workers_are_not(server):
    ask(server, "/process")
    masks = {}
    for task in Path(f"/proc/{server.serving()[0]}/task").iterdir():
        masks.setdefault((task / "comm").read_text().strip(), []).append(os.sched_getaffinity(int(task.name)))
    ours = os.sched_getaffinity(0)
    # The kernel keeps the first 15 characters of a thread's name.
    reactors = masks.pop("hoopsnake-react")
    assert [len(mask) for mask in reactors] == [1] * len(reactors)
    assert len(reactors) == len(set().union(*reactors)), "each has a processor of its own"
    assert all(mask == ours for group in masks.values() for mask in group), "no other thread has inherited a pin"


def test_thread_locals_stay_from_request_to_request(driver):
    with serving(driver, "checks", "--workers", "1", cwd=APPLICATIONS) as server:
        answers = [ask(server, "/count") for _ in range(5)]
        connection = connect(server)
        for _ in range(5):
            connection.request("GET", "/count")
            answers.append(json.load(connection.getresponse()))
        connection.close()
    assert [answer["count"] for answer in answers] == list(range(1, 11))
    assert {answer["name"] for answer in answers} == {"hoopsnake-worker-1"}
    assert len({answer["ident"] for answer in answers}) == 1


def test_deadline_is_on_the_monotonic_clock(driver):
    with serving(driver, "checks", "--request-timeout", "500", cwd=APPLICATIONS) as server:
        assert 400 < ask(server, "/deadline")["seconds"] <= 500


def test_items_of_a_stream_leave_one_by_one(server):
    connection = connect(server)
    connection.request("GET", "/gated")
    response = connection.getresponse()
    # The application waits for /open, which is asked for when this has arrived.
    assert response.read(len(b"before")) == b"before"
    assert ask(server, "/open")
    assert response.read() == b"after"
    connection.close()


@pytest.mark.parametrize("sent", [b"", b"begun"], ids=["before the response", "during the response"])
def test_application_learns_that_its_client_has_gone(server, sent):
    with socket.create_connection(("127.0.0.1", server.port), CLIENT_S) as client:
        client.sendall(b"GET /until-gone?%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % sent)
        received = b""
        while sent not in received:
            received += client.recv(65536)
    # Nothing is left unread, so what the server gets is the end of the client's side and no reset.
    assert ask(server, "/was-gone")


def test_failure_before_the_first_byte_is_a_500_and_a_traceback(server):
    mark = server.error_log.mark()
    with pytest.raises(urllib.error.HTTPError, match="500"):
        ask(server, "/fail")
    server.error_log.wait_for("RuntimeError: a failure for the error log", mark)
    assert "Traceback (most recent call last)" in server.error_log.text(mark)
    assert "checks.py" in server.error_log.text(mark)


def test_failure_after_the_first_byte_cuts_the_response(server):
    mark = server.error_log.mark()
    connection = connect(server)
    connection.request("GET", "/fail-late")
    response = connection.getresponse()
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()
    connection.close()
    server.error_log.wait_for("RuntimeError: a late failure for the error log", mark)


def test_exit_functions_run_at_sigterm_and_requests_are_finished(driver, tmp_path):
    told = tmp_path / "told"
    with serving(driver, "checks", cwd=APPLICATIONS, environment={"CHECKS_AT_EXIT": str(told)}) as server:
        connection = connect(server)
        connection.request("GET", "/gated")
        response = connection.getresponse()
        assert response.read(len(b"before")) == b"before"
        # Kept alive from before the signal, so that the gate can be opened when nothing new is accepted any more.
        opener = connect(server)
        opener.request("GET", "/process")
        opener.getresponse().read()
        opener.request("GET", "/open")
        server.process.send_signal(signal.SIGTERM)
        assert response.read() == b"after"
        connection.close()
        opener.close()
        server.process.wait(CLIENT_S)
    assert told.read_text() == "MainThread\n"


def test_large_stream_to_a_slow_reader_takes_no_memory(server):
    base, most, received = settled(server), 0, 0
    connection = connect(server)
    connection.request("GET", f"/stream?{LARGE_BYTES}")
    response = connection.getresponse()
    buffer = memoryview(bytearray(MIB))
    while True:
        length = response.readinto(buffer)
        if not length:
            break
        received += length
        if received // (100 * MIB) != (received - length) // (100 * MIB):
            # A reader that stops for a while, and nothing else: everything between it and the application fills up.
            time.sleep(0.2)
            most = max(most, server.resident_bytes())
    connection.close()
    assert received == LARGE_BYTES
    assert most - base < GROWTH_BYTES_MAX


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_large_upload_takes_no_memory(server, chunked):
    base, most = settled(server), 0
    block = bytes(range(256)) * (MIB // 256)
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % LARGE_BYTES
    # A chunked body takes the same way through the server's memory; a fifth of it shows as much.
    blocks = LARGE_BYTES // MIB // (5 if chunked else 1)
    checksum = 0
    with socket.create_connection(("127.0.0.1", server.port), CLIENT_S) as client:
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n\r\n" % framing)
        piece = b"%x\r\n%s\r\n" % (MIB, block) if chunked else block
        for number in range(blocks):
            client.sendall(piece)
            checksum = zlib.crc32(block, checksum)
            if number % 50 == 49:
                most = max(most, server.resident_bytes())
        if chunked:
            client.sendall(b"0\r\n\r\n")
        response = http.client.HTTPResponse(client)
        response.begin()
        answer = json.load(response)
    most = max(most, server.resident_bytes())
    assert answer == {"size": blocks * MIB, "crc32": checksum}
    assert most - base < GROWTH_BYTES_MAX


def test_memory_of_large_responses_is_given_back(driver):
    size = 8 * MIB
    # Large blocks are mapped one by one, so that freeing one gives it back to the kernel. By itself glibc soon takes
    # such blocks from its arenas and keeps up to 16 MiB of each for later: that would be measured, not the server.
    environment = {"MALLOC_MMAP_THRESHOLD_": str(MIB)}
    with serving(driver, "checks", "--workers", str(WORKERS), cwd=APPLICATIONS, environment=environment) as server:
        base = settled(server)

        def some(_):
            for _ in range(10):
                with urllib.request.urlopen(f"{server.url}/whole?{size}", timeout=CLIENT_S) as response:
                    assert len(response.read()) == size

        with ThreadPoolExecutor(WORKERS) as clients:
            list(clients.map(some, range(WORKERS)))
        # No further request is needed for it: what the last ones held is released by itself, within moments.
        eventually("less memory", lambda: server.resident_bytes() - base < size // 2)


def settled(server):
    """Resident bytes after every worker has run and every buffer that is kept was made, those for uploads too."""

    def upload(_):
        with urllib.request.urlopen(f"{server.url}/upload", bytes(8 * MIB), CLIENT_S) as response:
            assert json.load(response)["size"] == 8 * MIB

    with ThreadPoolExecutor(WORKERS) as clients:
        list(clients.map(lambda _: ask(server, f"/together?{WORKERS}"), range(WORKERS)))
        list(clients.map(upload, range(WORKERS)))
    with urllib.request.urlopen(f"{server.url}/stream?{2 * MIB}", timeout=CLIENT_S) as response:
        response.read()
    return server.resident_bytes()
