"""A chat by long polling: a reader's request is parked until somebody writes, and holds no worker meanwhile.

    hoopsnake --chdir examples/chat --workers 2 chat

``GET /messages?after=N`` answers with what was written after message N. If there is nothing, the application says so to
the server with ``X-WSGo-Park`` and is called again, for the same request, when ``notify_parked`` is called for that
channel, or after 25 seconds. Whoever writes between the look at the list and the parking isn't missed: the server
remembers.

The messages are kept in this process. With ``--processes`` they would belong in a database; notices reach all
processes.
"""

import json
import threading
from urllib.parse import parse_qs

from hoopsnake import RETRY, notify_parked

MESSAGES_KEPT = 1000
TEXT_BYTES_MAX = 4000
POLL_SECONDS = 25

PAGE = """<!doctype html>
<meta charset="utf-8"><title>Chat</title>
<ul id="messages"></ul>
<form id="form"><input id="text" autofocus autocomplete="off"><button>Say</button></form>
<script>
  const list = document.getElementById("messages"), input = document.getElementById("text");
  document.getElementById("form").onsubmit = event => {
    event.preventDefault();
    fetch("messages", {method: "POST", body: input.value});
    input.value = "";
  };
  (async () => {
    for (let after = 0;;) {
      try {
        const answer = await (await fetch("messages?after=" + after)).json();
        for (const text of answer.messages)
          list.appendChild(document.createElement("li")).textContent = text;
        after = answer.last;
      } catch (error) {
        await new Promise(resume => setTimeout(resume, 1000));
      }
    }
  })();
</script>
"""


class Room:
    """What was said, numbered from 1."""

    def __init__(self):
        self._lock = threading.Lock()
        self._messages = []
        self._last = 0

    def add(self, text):
        with self._lock:
            self._messages.append(text)
            del self._messages[:-MESSAGES_KEPT]
            self._last += 1
            return self._last

    def after(self, number):
        """The messages after that one, and the number of the last."""
        with self._lock:
            count = max(0, min(self._last - number, len(self._messages)))
            return self._messages[len(self._messages) - count :], self._last


ROOM = Room()


def answer(start_response, body, content_type, status="200 OK"):
    start_response(
        status,
        [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")],
    )
    return [body]


def poll(environ, start_response):
    after = parse_qs(environ["QUERY_STRING"]).get("after", ["0"])[0]
    messages, last = ROOM.after(int(after) if after.isdecimal() else 0)
    # The second time there is an argument, and whatever there is is the answer.
    if not messages and "HTTP_X_WSGO_PARK_ARG" not in environ:
        fields = [
            ("X-WSGo-Park", "chat"),
            ("X-WSGo-Park-Timeout", f"{POLL_SECONDS} retry"),
            ("Content-Type", "text/plain"),
        ]
        start_response("200 OK", fields)
        return []
    body = json.dumps({"last": last, "messages": messages}).encode()
    return answer(start_response, body, "application/json")


def write(environ, start_response):
    text = environ["wsgi.input"].read(TEXT_BYTES_MAX).decode("utf-8", "replace").strip()
    if not text:
        return answer(start_response, b"nothing said\n", "text/plain", "400 Bad Request")
    number = ROOM.add(text)
    notify_parked("chat", RETRY, str(number))
    return answer(start_response, f"{number}\n".encode(), "text/plain")


def application(environ, start_response):
    route = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    if route == ("GET", "/messages"):
        return poll(environ, start_response)
    if route == ("POST", "/messages"):
        return write(environ, start_response)
    if route == ("GET", "/"):
        return answer(start_response, PAGE.encode(), "text/html; charset=utf-8")
    return answer(start_response, b"not found\n", "text/plain", "404 Not Found")
