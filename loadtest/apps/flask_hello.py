"""The hello of Flask's own quick start."""

from flask import Flask

application = Flask(__name__)


@application.route("/")
def hello():
    """One view, no template, no session."""
    return "Hello, World!"
