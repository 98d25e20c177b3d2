"""What the server does in Python about requests that run for too long: the exception, stacks, and leaked locks.

Importable without the server, so that applications can name the exception in tests and shells as well.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Iterable

__all__ = ["RequestTimeoutException"]


class RequestTimeoutException(Exception):
    """Raised in a request that runs for longer than ``--request-timeout``.

    An application may catch it and answer; uncaught, the client gets 504. It comes at any point of the Python code,
    once for each request, and not while the thread waits in a call into C.
    """


RequestTimeoutException.__module__ = "hoopsnake"


def stacks(threads: Iterable[tuple[int, str]], others: bool) -> str:
    """The stacks of threads (identifier and heading of each), the innermost call last, as tracebacks have it.

    With `others`, those of all other threads of Python follow.
    """
    frames = sys._current_frames()
    wanted = list(threads)
    if others:
        named = {ident for ident, _ in wanted}
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        wanted += [(ident, names.get(ident, "a thread without a name")) for ident in frames if ident not in named]
    found = []
    for ident, heading in wanted:
        frame = frames.get(ident)
        # Without the lines of the sources: those are read later, when the threads may have gone on.
        summary = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False) if frame else None
        found.append((heading, summary))
    del frames, frame
    text = []
    for heading, summary in found:
        text.append(f"{heading}\n")
        if summary is not None:
            summary.reverse()
            # How the thread began is the same for all.
            while summary and summary[0].filename == threading.__file__:
                del summary[0]
            text.extend(summary.format())
    return "".join(text)


def release_logging_locks(times: int) -> list[str]:
    """Releases the locks of `logging` that the calling thread holds, each at most so many times; tells which they were.

    An exception that comes between the taking of a lock and the `try` after it leaves the lock taken for ever: every
    later call of `logging` in any other thread would hang.
    """
    released = []
    locks = [("the lock of the logging module", getattr(logging, "_lock", None))]
    for reference in list(getattr(logging, "_handlerList", ())):
        handler = reference()
        if handler is not None:
            locks.append((f"the lock of {handler!r}", getattr(handler, "lock", None)))
    for name, lock in locks:
        is_owned = getattr(lock, "_is_owned", None)
        if lock is None or is_owned is None:
            continue
        for _ in range(times):
            if not is_owned():
                break
            lock.release()
            released.append(name)
    return released
