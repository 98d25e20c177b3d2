"""The demo, whose streamed page waits for a request to /_next where it would wait for a while."""

import threading

import wsgi_app

WAIT_S = 20


class Gate:
    """Stands in for the module `time` of the demo: each sleep ends when it is told to."""

    monotonic = staticmethod(wsgi_app.time.monotonic)

    def __init__(self):
        self.sleeping = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def sleep(self, seconds):
        self.sleeping.release()
        assert self.go_on.acquire(timeout=WAIT_S)


gate = wsgi_app.time = Gate()


def application(environ, start_response):
    if environ["PATH_INFO"] != "/_next":
        return wsgi_app.application(environ, start_response)
    assert gate.sleeping.acquire(timeout=WAIT_S)
    gate.go_on.release()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"went on"]
