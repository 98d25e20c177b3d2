"""Where a request waits until its test lets it go on: a *gate* is a path that doesn't exist yet."""

import os
import time

GATE_SECONDS_MAX = 60


def gate(path):
    """Says that the request has come here, and waits until the test opens the gate."""
    open(path + ".arrived", "w").close()
    until = time.monotonic() + GATE_SECONDS_MAX
    while not os.path.exists(path):
        if time.monotonic() > until:
            raise TimeoutError(f"nobody opened {path}")
        # The test is another process, with nothing between them but files.
        time.sleep(0.005)
