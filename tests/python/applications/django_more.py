"""The Django example, and beside it /_connections: what each worker thread has as its database connection."""

import json
import threading

from django.db import connection

from site_project.wsgi import application as site  # the example itself: it is in the working directory

WAIT_S = 20
WORKERS = 4

together = threading.Barrier(WORKERS)
# They are kept, so that no later one can have the address of an earlier one.
seen = []


def connections(environ, start_response):
    """Asked by as many clients as there are workers at a time, so that each worker answers one."""
    connection.ensure_connection()
    seen.append(connection.connection)
    together.wait(WAIT_S)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([threading.current_thread().name, id(connection.connection)]).encode()]


def application(environ, start_response):
    if environ["PATH_INFO"] == "/_connections":
        return connections(environ, start_response)
    return site(environ, start_response)
