"""The demo that `make run` serves: plain WSGI, one file, the standard library only.

    hoopsnake --chdir examples/demo --module wsgi_app

The front page shows the environ of its own request; the others stream, take an upload, send a file and wait.
"""

import hashlib
import html
import os
import platform
import threading
import time
from email.message import Message
from urllib.parse import quote

BLOCK_BYTES = 64 * 1024
PART_HEADER_BYTES_MAX = 8 * 1024
STREAM_NUMBERS = 20
STREAM_PAUSE_S = 0.25
SLOW_PAUSE_S = 2.0
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
    }
    rows = []
    for name in sorted(environ):
        value = "(not shown)" if name in HIDDEN else repr(environ[name])
        rows.append(f'<tr><th scope="row"><code>{show(name)}</code></th><td>{show(value)}</td></tr>\n')
    body = f"""<p>This page was made by <code>examples/demo/wsgi_app.py</code>.</p>
<dl>{"".join(f"<dt>{show(name)}</dt><dd>{show(value)}</dd>" for name, value in facts.items())}</dl>
<h2>Try</h2>
<ul>
<li><a href="/stream">A streamed page</a>: {STREAM_NUMBERS} numbers, each sent the moment it is made</li>
<li><a href="/download">A download</a> through <code>wsgi.file_wrapper</code></li>
<li><a href="/slow">A slow page</a>: waits {SLOW_PAUSE_S:g} seconds; others are served meanwhile</li>
</ul>
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


def page(start_response, status, title, body, *headers):
    """A whole HTML page."""
    text = (PAGE.format(title=show(title)) + body + PAGE_END).encode()
    start_response(
        status,
        [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(text))),
            ("Cache-Control", "no-store"),
            *headers,
        ],
    )
    return [text]


def show(value):
    """Escaped for HTML; latin-1 strings of the environ and lone surrogates can always be encoded."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))


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
    "/upload": (("POST",), upload),
}
