"""Hoopsnake: a WSGI server for Linux. One I/O reactor per core, one shared pool of Python threads.

Run it with ``hoopsnake module:callable`` or ``python -m hoopsnake module:callable``. The server itself is the
extension ``hoopsnake._core``; importing this package doesn't load it.

Applications import cron jobs, timers and the like from here, or by the same names from :mod:`wsgo`. Outside the
server these do nothing.
"""

from importlib.metadata import PackageNotFoundError, version

from hoopsnake._cache import cache_purge
from hoopsnake._jobs import (
    DISCONNECT,
    HTTP_204,
    HTTP_504,
    RETRY,
    add_cron,
    cron,
    notify_parked,
    timer,
)
from hoopsnake._timeouts import RequestTimeoutException

__all__ = [
    "DISCONNECT",
    "HTTP_204",
    "HTTP_504",
    "RETRY",
    "RequestTimeoutException",
    "__version__",
    "add_cron",
    "cache_purge",
    "cron",
    "notify_parked",
    "timer",
]

try:
    __version__ = version("hoopsnake")
except PackageNotFoundError:  # the source folder is on sys.path, and nothing is installed
    __version__ = "0+source"

del PackageNotFoundError, version
