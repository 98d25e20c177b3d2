"""The demo that `make run` serves: plain WSGI in one file, of the standard library and the server's own module.

    hoopsnake --chdir examples/demo --config examples/demo/hoopsnake.toml

The front page shows the environ of its own request; the others stream, take an upload, send a file, are cached, and
wait with and without a worker. A timer counts beside them.
"""

import hashlib
import html
import itertools
import os
import platform
import threading
import time
from datetime import datetime
from email.message import Message
from urllib.parse import quote

import hoopsnake

BLOCK_BYTES = 64 * 1024
PART_HEADER_BYTES_MAX = 8 * 1024
STREAM_NUMBERS = 20
STREAM_PAUSE_S = 0.25
SLOW_PAUSE_S = 2.0
CACHED_S = 10
BELL_S = 25
TICK_S = 30
HIDDEN = {"HTTP_COOKIE", "HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION"}

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} – Hoopsnake demo</title>
<style>
:root {{ color-scheme: light dark; --line: #8886; --quiet: color-mix(in srgb, currentColor 70%, transparent); }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 58rem; margin: 0 auto; padding: 1rem; }}
h1 {{ line-height: 1.2; }}
code, td, dd {{ font-family: ui-monospace, monospace; overflow-wrap: anywhere; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; }}
dt {{ color: var(--quiet); }} dd {{ margin: 0; }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem; }}
caption {{ text-align: left; font-weight: bold; padding: .5rem 0; }}
th, td {{ text-align: left; vertical-align: top; border-top: 1px solid var(--line); padding: .25rem .5rem .25rem 0; }}
th {{ font-weight: normal; white-space: nowrap; }}
form {{ border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; margin: 1rem 0; }}
button, input {{ font: inherit; margin: .25rem .5rem .25rem 0; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
"""
PAGE_END = """</main>
</body>
</html>
"""


def application(environ, start_response):
    """Routes the request."""
    path = environ.get("PATH_INFO") or "/"
    methods, view = ROUTES.get(path, ((), None))
    if view is None:
        return page(start_response, "404 Not Found", "Not found", f"<p>There is no page <code>{show(path)}</code>.</p>")
    if environ["REQUEST_METHOD"] not in methods:
        text = f"<p>This page answers {', '.join(methods)}.</p>" + BACK
        allow = ("Allow", ", ".join(methods))
        return page(start_response, "405 Method Not Allowed", "Method not allowed", text, allow)
    return view(environ, start_response)


def front(environ, start_response):
    """What is going on: who serves, and the environ."""
    facts = {
        "Server": environ.get("SERVER_SOFTWARE", "unknown"),
        "Reactor": environ.get("hoopsnake.reactor", "not served by Hoopsnake"),
        "Worker thread": threading.current_thread().name,
        "Process": os.getpid(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Several threads": "yes" if environ["wsgi.multithread"] else "no",
        "A timer": f"has run {ticked[0]} times in this process, once in {TICK_S} seconds",
    }
    rows = []
    for name in sorted(environ):
        value = "(not shown)" if name in HIDDEN else repr(environ[name])
        rows.append(f'<tr><th scope="row"><code>{show(name)}</code></th><td>{show(value)}</td></tr>\n')
    body = f"""<p>{SNAKE}This page was made by <code>examples/demo/wsgi_app.py</code>.</p>
<dl>{"".join(f"<dt>{show(name)}</dt><dd>{show(value)}</dd>" for name, value in facts.items())}</dl>
<h2>Try</h2>
<ul>
<li><a href="/stream">A streamed page</a>: {STREAM_NUMBERS} numbers, each sent the moment it is made</li>
<li><a href="/download">A download</a> through <code>wsgi.file_wrapper</code></li>
<li><a href="/slow">A slow page</a>: holds a worker for {SLOW_PAUSE_S:g} seconds; others are served meanwhile</li>
<li><a href="/static/hoop.svg">A static file</a>: the snake above, sent by the reactor without Python</li>
<li><a href="/cached">A cached page</a>: made once in {CACHED_S} seconds, however many ask for it</li>
<li><a href="/wait" target="_blank">A page that waits for a bell</a> without a worker: open it in as many tabs as you
like, and ring</li>
</ul>
<form action="/ring" method="post"><button type="submit">Ring the bell</button></form>
{UPLOAD_FORM}
<table>
<caption>The environ of this request</caption>
<thead><tr><th scope="col">Key</th><th scope="col">Value</th></tr></thead>
<tbody>
{"".join(rows)}</tbody>
</table>
"""
    return page(start_response, "200 OK", "Hoopsnake is running", body)


def stream(environ, start_response):
    """Numbers, one by one. Each item of the iterable is sent before the next is asked for."""
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store")])
    return numbers()


def numbers():
    started = time.monotonic()
    yield (PAGE.format(title="A streamed page") + '<ol aria-live="polite">\n').encode()
    for number in range(1, STREAM_NUMBERS + 1):
        yield f"<li>number {number}, {time.monotonic() - started:.2f} s after the first byte</li>\n".encode()
        time.sleep(STREAM_PAUSE_S)
    yield ("</ol>\n" + BACK + PAGE_END).encode()


def slow(environ, start_response):
    """Holds a worker thread for a while."""
    time.sleep(SLOW_PAUSE_S)
    return page(start_response, "200 OK", "A slow page", f"<p>That took {SLOW_PAUSE_S:g} seconds.</p>" + BACK)


def cached(environ, start_response):
    """May be served from memory for a while. What the browser itself may keep would be `max-age`."""
    body = f"""<p>Made at {clock()}, for the {next(made)}. time.</p>
<p><a href="/cached">Ask again</a>, or look at the field <code>X-Cache</code> with
<code>curl -i {show(environ["wsgi.url_scheme"])}://{show(environ.get("HTTP_HOST", "127.0.0.1:8000"))}/cached</code>.
A reload by the browser asks for a new one.</p>
"""
    return page(start_response, "200 OK", "A cached page", body + BACK, cache=f"s-maxage={CACHED_S}")


def wait(environ, start_response):
    """Says to the server what it waits for, and is called again when the bell is rung, or when it has waited enough."""
    told = environ.get("HTTP_X_WSGO_PARK_ARG")
    if "hoopsnake.version" not in environ:
        text = "Only Hoopsnake can let a request wait without a worker."
    elif told is None:
        fields = [("X-WSGo-Park", "bell"), ("X-WSGo-Park-Timeout", f"{BELL_S} retry"), ("Content-Type", "text/plain")]
        start_response("200 OK", fields)
        return []
    else:
        text = f"The bell was rung at {told}." if told else f"Nobody has rung for {BELL_S} seconds."
    return page(start_response, "200 OK", "The bell", f"<p>{show(text)}</p>" + BACK)


def ring(environ, start_response):
    """Wakes all that wait, in every process."""
    now = clock()
    hoopsnake.notify_parked("bell", hoopsnake.RETRY, now)
    return page(start_response, "200 OK", "Rung", f"<p>At {now}. Who has waited is answered now.</p>" + BACK)


@hoopsnake.timer(TICK_S)
def tick():
    ticked[0] += 1


def clock():
    return f"{datetime.now():%H:%M:%S}"


def download(environ, start_response):
    """Sends this very file. The server may send it from the page cache, without Python."""
    file = open(__file__, "rb")  # noqa: SIM115 - closed by the wrapper's close(), which the server calls
    name = quote(os.path.basename(__file__))
    start_response(
        "200 OK",
        [
            ("Content-Type", "text/x-python; charset=utf-8"),
            ("Content-Length", str(os.fstat(file.fileno()).st_size)),
            ("Content-Disposition", f"attachment; filename*=UTF-8''{name}"),
        ],
    )
    return environ["wsgi.file_wrapper"](file, BLOCK_BYTES)


def upload(environ, start_response):
    """Reads an uploaded file in blocks and says what it was; nothing is kept."""
    try:
        files = list(uploaded_files(environ))
    except MultipartError as error:
        text = f"<p>The form can't be read: {show(error)}.</p>" + BACK
        return page(start_response, "400 Bad Request", "Bad upload", text)
    if not files:
        return page(start_response, "400 Bad Request", "No file", "<p>No file was chosen.</p>" + BACK)
    listed = "".join(
        f"<dt>Name</dt><dd>{show(name)}</dd><dt>Size</dt><dd>{size} bytes</dd><dt>SHA-256</dt><dd>{digest}</dd>"
        for name, size, digest in files
    )
    return page(start_response, "200 OK", "Received", f"<dl>{listed}</dl>" + BACK)


def uploaded_files(environ):
    """Name, bytes and SHA-256 of each file of a multipart/form-data body."""
    header = Message()
    header["Content-Type"] = environ.get("CONTENT_TYPE", "")
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        raise MultipartError("it isn't multipart/form-data with a boundary")
    name, size, digest = None, 0, None
    for event, value in multipart(blocks(environ), boundary.encode("latin-1")):
        if event == "head":
            name, size, digest = value.get_filename(), 0, hashlib.sha256()
        elif event == "data":
            size += len(value)
            digest.update(value)
        elif name:  # the end of a part that is a file; without a name nothing was chosen, or it is another field
            yield name, size, digest.hexdigest()


def blocks(environ):
    """The request's body in blocks. Ends by itself where the server says so, else at Content-Length."""
    remaining = None if environ.get("wsgi.input_terminated") else int(environ.get("CONTENT_LENGTH") or 0)
    while remaining is None or remaining > 0:
        block = environ["wsgi.input"].read(BLOCK_BYTES if remaining is None else min(BLOCK_BYTES, remaining))
        if not block:
            return
        if remaining is not None:
            remaining -= len(block)
        yield block


class MultipartError(ValueError):
    """The body isn't what RFC 2046 §5.1 asks for."""


def multipart(source, boundary):
    """("head", Message), ("data", bytes)… and ("end", None) for each part of a body that comes in blocks of any size.

    Holds no more than one block, a delimiter and a part's header at a time.
    """
    delimiter = b"\r\n--" + boundary
    # The first delimiter has no line before it: this puts one there.
    buffer, source, in_part = bytearray(b"\r\n"), iter(source), False
    while True:
        found = buffer.find(delimiter)
        # What can't be the beginning of a delimiter that the next block completes is data.
        safe = found if found >= 0 else max(0, len(buffer) - len(delimiter) + 1)
        if in_part and safe:
            yield "data", bytes(buffer[:safe])
        del buffer[:safe]
        if found < 0:
            more(buffer, source)
            continue
        if in_part:
            yield "end", None
        del buffer[: len(delimiter)]
        while len(buffer) < 2:
            more(buffer, source)
        if buffer.startswith(b"--"):
            return
        yield "head", part_header(buffer, source)
        in_part = True


def part_header(buffer, source):
    """Takes the rest of the delimiter's line and the header of a part off the buffer."""
    end = buffer.find(b"\r\n\r\n")
    while end < 0:
        if len(buffer) > PART_HEADER_BYTES_MAX + BLOCK_BYTES:
            raise MultipartError("the header of a part is too long")
        more(buffer, source)
        end = buffer.find(b"\r\n\r\n")
    padding, *lines = bytes(buffer[:end]).decode("utf-8", "replace").split("\r\n")
    if padding.strip(" \t"):
        raise MultipartError("there is text behind a boundary")
    del buffer[: end + 4]
    header = Message()
    for line in lines:
        name, _, value = line.partition(":")
        header[name.strip()] = value.strip()
    return header


def more(buffer, source):
    """Adds a block."""
    block = next(source, b"")
    if not block:
        raise MultipartError("it ends before its last boundary")
    buffer += block


def page(start_response, status, title, body, *headers, cache="no-store"):
    """A whole HTML page."""
    text = (PAGE.format(title=show(title)) + body + PAGE_END).encode()
    start_response(
        status,
        [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(text))),
            ("Cache-Control", cache),
            *headers,
        ],
    )
    return [text]


def show(value):
    """Escaped for HTML; latin-1 strings of the environ and lone surrogates can always be encoded."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))


ticked = [0]
made = itertools.count(1)
SNAKE = '<img src="/static/hoop.svg" alt="" width="96" height="96" style="float: right">'
BACK = '<p><a href="/">Back to the front page</a></p>\n'
UPLOAD_FORM = """<form action="/upload" method="post" enctype="multipart/form-data">
<h2>Upload</h2>
<label for="file">A file; it is read, hashed and dropped:</label><br>
<input id="file" name="file" type="file" required>
<button type="submit">Upload</button>
</form>"""
ROUTES = {
    "/": (("GET", "HEAD"), front),
    "/stream": (("GET", "HEAD"), stream),
    "/download": (("GET", "HEAD"), download),
    "/slow": (("GET", "HEAD"), slow),
    "/cached": (("GET", "HEAD"), cached),
    "/wait": (("GET",), wait),
    "/ring": (("POST",), ring),
    "/upload": (("POST",), upload),
}
