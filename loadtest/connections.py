"""Helper process: connections that do something slow, so that the runner's own work isn't measured with them.

    connections.py idle PORT COUNT            open COUNT keep-alive connections, one request each; hold them until EOF
    connections.py download PORT BYTES RATE   GET /?bytes=BYTES, read at most RATE bytes a second
    connections.py upload PORT BYTES          POST BYTES as fast as they are taken
    connections.py stalled PORT COUNT SIZE    COUNT times GET /s/SIZE.bin; read a hundredth of it and no more until EOF
    connections.py reading PORT FOLDER SIZE COUNT cold|hot
                                              GET /s/SIZE-N.bin for N below COUNT, again and again until EOF;
                                              cold: each is put out of the page cache before

Each writes lines of JSON on standard output. Standard library only; loopback only.
"""

import http.client
import json
import os
import select
import socket
import struct
import sys
import time

TIMEOUT_SECONDS = 30
PIECE_BYTES = 256 * 1024
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def say(**facts):
    """One line of JSON."""
    print(json.dumps(facts), flush=True)


def read_answer(sock):
    """One answer with a Content-Length, or chunked with an end in sight; True when the connection stays open."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(4096)
        if not piece:
            return False
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    length = int(fields.get(b"content-length", b"0"))
    while len(body) < length:
        piece = sock.recv(4096)
        if not piece:
            return False
        body += piece
    return fields.get(b"connection", b"").strip() != b"close"


def idle(port, count):
    """Open, tell, wait for the end of stdin, tell how many the server still holds."""
    held = []
    refused = 0
    for _ in range(count):
        try:
            sock = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
            sock.sendall(REQUEST)
            if read_answer(sock):
                held.append(sock)
            else:
                refused += 1
        except OSError:
            refused += 1
            if refused > count // 10:
                break
    say(opened=len(held), refused=refused)
    sys.stdin.read()
    alive = 0
    for sock in held:
        sock.setblocking(False)
        try:
            alive += sock.recv(1) != b""
        except BlockingIOError:
            alive += 1
        except OSError:
            pass
        # Reset instead of FIN: 10,000 connections in TIME_WAIT would be in the next round's way.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    say(alive=alive)


def download(port, count, rate):
    """Read at a bounded rate; a rate of 0 is no bound."""
    started = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE_BYTES)
    connection.request("GET", f"/?bytes={count}")
    answer = connection.getresponse()
    received = 0
    while True:
        piece = answer.read(PIECE_BYTES)
        if not piece:
            break
        received += len(piece)
        ahead = received / rate - (time.monotonic() - started) if rate else 0
        if ahead > 0:
            # The rate that was asked for.
            time.sleep(ahead)
    say(status=answer.status, bytes=received, seconds=time.monotonic() - started)


def upload(port, count):
    """Send, then read the count that the application answers."""
    started = time.monotonic()
    piece = b"u" * PIECE_BYTES
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(count))
    connection.endheaders()
    left = count
    while left > 0:
        connection.send(piece if left >= len(piece) else piece[:left])
        left -= len(piece)
    answer = connection.getresponse()
    body = answer.read()
    counted = int(body) if body.isdigit() else -1
    say(status=answer.status, bytes=counted, seconds=time.monotonic() - started)


def stalled(port, count, size):
    """Readers that stop within a file. Those whose sockets still are open at the end are counted."""
    held = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        sock.sendall(f"GET /s/{size}.bin HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        left = size // 100
        while left > 0:
            piece = sock.recv(min(left, PIECE_BYTES))
            if not piece:
                raise OSError("a connection was closed")
            left -= len(piece)
        held.append(sock)
    say(opened=len(held))
    sys.stdin.read()
    for sock in held:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    say(opened=0)


def reading(port, folder, size, count, cold):
    """Files one after the other, until the end of stdin; how long each took. Cold ones the disk must be asked for."""
    names = [f"{size}-{number}.bin" for number in range(int(count))]
    size, times = int(size), []
    for name in names:
        # Once before: whatever is behind the disk has seen it for each server then.
        with open(os.path.join(folder, name), "rb", buffering=0) as file:
            while file.read(PIECE_BYTES):
                pass
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_SECONDS)
    say(ready=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        name = names[len(times) % len(names)]
        if cold == "cold":
            with open(os.path.join(folder, name), "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.monotonic()
        connection.request("GET", f"/s/{name}")
        answer = connection.getresponse()
        received = 0
        while piece := answer.read(PIECE_BYTES):
            received += len(piece)
        times.append(time.monotonic() - began)
        if answer.status != 200 or received != size:
            raise OSError(f"status {answer.status} with {received} bytes")
    say(times=times)


def main():
    """Dispatch; a failure is a line of JSON too."""
    what, *numbers = sys.argv[1:]
    try:
        if what == "reading":
            reading(*numbers)
        else:
            {"idle": idle, "download": download, "upload": upload, "stalled": stalled}[what](*map(int, numbers))
    except (OSError, http.client.HTTPException) as error:
        say(failure=f"{type(error).__name__}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
