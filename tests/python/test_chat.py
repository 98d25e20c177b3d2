"""The chat in `examples/chat`, by clients as browsers are: each polls and speaks on connections of its own."""

import concurrent.futures
import http.client
import json
import signal
import threading

import httpx
import pytest
from serving import CLIENT_S, EXAMPLES, serving

READERS = 40
MESSAGES = 25


@pytest.fixture(scope="module")
def chat(driver):
    # Fewer workers than there are readers: who waits must hold none.
    with serving(driver, "chat", "--chdir", str(EXAMPLES / "chat"), "--workers", "2", cwd=EXAMPLES) as server:
        yield server


def read(url, after, wanted, begun=None):
    """Polls, as the page does, until `wanted` messages have come."""
    heard = []
    with httpx.Client(base_url=url, timeout=CLIENT_S) as client:
        while len(heard) < wanted:
            if begun:
                begun()
            answer = client.get("/messages", params={"after": after}).raise_for_status().json()
            heard += answer["messages"]
            after = answer["last"]
    return heard


def test_everybody_hears_everything_in_order(chat):
    begun = threading.Barrier(READERS + 1)
    first = threading.local()

    def once():
        if not getattr(first, "done", False):
            first.done = True
            begun.wait(CLIENT_S)

    expected = [f"message {number} – ☕" for number in range(MESSAGES)]
    with (
        concurrent.futures.ThreadPoolExecutor(READERS) as pool,
        httpx.Client(base_url=chat.url, timeout=CLIENT_S) as writer,
    ):
        readers = [pool.submit(read, chat.url, 0, MESSAGES, once) for _ in range(READERS)]
        begun.wait(CLIENT_S)
        for text in expected:
            assert writer.post("/messages", content=text.encode()).status_code == 200
        assert [reader.result(CLIENT_S) for reader in readers] == [expected] * READERS


def test_the_page_and_what_is_refused(chat):
    with httpx.Client(base_url=chat.url, timeout=CLIENT_S) as client:
        assert "fetch(" in client.get("/").text
        assert client.post("/messages", content=b" ").status_code == 400
        assert client.get("/nowhere").status_code == 404


def test_a_reader_that_leaves_harms_nobody(chat):
    with httpx.Client(base_url=chat.url, timeout=CLIENT_S) as client:
        last = client.get("/messages", params={"after": 0}).json()["last"]
        with pytest.raises(httpx.ReadTimeout):
            client.get("/messages", params={"after": last}, timeout=0.3)
        assert client.post("/messages", content=b"after that").status_code == 200
    assert read(chat.url, last, 1) == ["after that"]


def received(server):
    """How many requests have come."""
    since = server.access_log.mark()
    server.process.send_signal(signal.SIGUSR2)
    return int(server.access_log.wait_for(r"^1: Requests received: (\d+)", since)[1])


def test_a_stop_answers_who_waits(driver):
    with serving(driver, "chat", "--chdir", str(EXAMPLES / "chat"), cwd=EXAMPLES) as server:
        reader = http.client.HTTPConnection("127.0.0.1", server.port, timeout=CLIENT_S)
        reader.request("GET", "/messages?after=7")
        while received(server) == 0:
            pass
        server.process.terminate()
        answer = reader.getresponse()
        assert (answer.status, json.load(answer)["messages"]) == (200, [])
        reader.close()
