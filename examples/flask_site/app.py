"""A small Flask site, as users have them: a session, an upload, a streamed page, a JSON answer.

hoopsnake --chdir examples/flask_site app:app
"""

import hashlib
import os
import threading
import time

from flask import Flask, Response, jsonify, redirect, request, session, url_for

NUMBERS_MAX = 1_000_000
SLEEP_S_MAX = 10.0
BLOCK_BYTES = 64 * 1024

app = Flask(__name__)
# Sessions of this example end with the process, unless a key is given.
app.secret_key = os.environ.get("FLASK_SITE_SECRET") or os.urandom(32)
application = app


@app.get("/")
def hello():
    return "Hello, World!"


@app.get("/json")
def some_json():
    """About 10 KB of JSON."""
    return jsonify(items=[{"id": number, "name": f"item {number}", "price": number * 1.25} for number in range(200)])


@app.get("/count")
def count():
    """How often this browser has been here."""
    session["count"] = session.get("count", 0) + 1
    return {"count": session["count"]}


@app.post("/login")
def login():
    session["user"] = request.form["user"]
    return redirect(url_for("user"))


@app.get("/user")
def user():
    return {"user": session.get("user")}


@app.post("/upload")
def upload():
    """Size and SHA-256 of the form field `file`."""
    file = request.files["file"]
    size, digest = 0, hashlib.sha256()
    while block := file.read(BLOCK_BYTES):
        size += len(block)
        digest.update(block)
    return {"name": file.filename, "size": size, "sha256": digest.hexdigest()}


@app.post("/echo")
def echo():
    """The raw body."""
    return Response(request.get_data(cache=False), mimetype="application/octet-stream")


@app.get("/stream")
def stream():
    """`?numbers=10`: one line each."""
    numbers = max(0, min(request.args.get("numbers", 10, type=int), NUMBERS_MAX))
    return Response((f"{number}\n" for number in range(numbers)), mimetype="text/plain")


@app.get("/sleep")
def sleep():
    """`?seconds=0.2`: holds a worker without the GIL."""
    time.sleep(max(0.0, min(request.args.get("seconds", 0.2, type=float), SLEEP_S_MAX)))
    return {"thread": threading.current_thread().name}


@app.get("/fail")
def fail():
    raise RuntimeError("this view always fails")
