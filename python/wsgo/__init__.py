"""wsgo's module, for applications that were written for wsgo: the names, and the things, of :mod:`hoopsnake`.

Outside the server importing it works, and what it offers does nothing.
"""

from hoopsnake import (
    DISCONNECT,
    HTTP_204,
    HTTP_504,
    RETRY,
    RequestTimeoutException,
    add_cron,
    cache_purge,
    cron,
    notify_parked,
    timer,
)

__all__ = [
    "DISCONNECT",
    "HTTP_204",
    "HTTP_504",
    "RETRY",
    "RequestTimeoutException",
    "add_cron",
    "cache_purge",
    "cron",
    "notify_parked",
    "timer",
]
