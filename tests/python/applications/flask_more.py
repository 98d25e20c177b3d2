"""The Flask example with what its users also do: a generator that needs its request, a file, a late failure."""

import os
import pathlib

from app import app  # the example itself: it is in the working directory
from flask import request, send_file, stream_with_context

FOLDER = pathlib.Path(os.environ["FLASK_MORE_FOLDER"])


@app.get("/lines")
def lines():
    """Each line asks for the request's arguments while it is made."""

    @stream_with_context
    def made():
        for number in range(int(request.args["lines"])):
            yield f"{request.args['word']} {number}\n"

    return app.response_class(made(), mimetype="text/plain")


@app.get("/file")
def file():
    return send_file(FOLDER / "file.bin", mimetype="application/octet-stream", conditional=True)


@app.get("/fail-late")
def fail_late():
    def made():
        yield "part"
        raise RuntimeError("a late failure of Flask")

    return app.response_class(made(), mimetype="text/plain")


application = app
