"""What applications import from :mod:`hoopsnake` and :mod:`wsgo`: cron jobs, timers, and how parked requests are woken.

Outside the server everything here checks its arguments and does nothing more, so that tests, shells and management
commands of an application run. The extension is looked for when something is called, not when this is imported.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Optional, TypeVar

__all__ = [
    "DISCONNECT",
    "HTTP_204",
    "HTTP_504",
    "RETRY",
    "add_cron",
    "cron",
    "notify_parked",
    "timer",
]

DISCONNECT = 0
RETRY = 1
HTTP_204 = 2
HTTP_504 = 3

_Job = TypeVar("_Job", bound=Callable[[], object])


def add_cron(func: Callable[[], object], period: float, min: int, hour: int, day: int, mon: int, wday: int, /) -> None:
    """Registers a job: a timer if ``period`` isn't 0, otherwise a cron job of the five fields.

    Raises ``TypeError`` and ``ValueError`` for what can't be a job, ``RuntimeError`` when there are too many.
    """
    core = _extension()
    if core is not None:
        core.add_cron(func, period, min, hour, day, mon, wday)


def cron(min: int, hour: int, day: int, mon: int, wday: int) -> Callable[[_Job], _Job]:
    """Runs the decorated function, without arguments, at times of local time, in one process.

    ``min`` 0 to 59, ``hour`` 0 to 23, ``day`` 1 to 31, ``mon`` 1 to 12, ``wday`` 0 to 7 (0 and 7 are Sunday). -1 is
    any, -N every value that N divides. If ``day`` and ``wday`` are both plain numbers, either of them is enough. The
    function itself is returned unchanged.

        @hoopsnake.cron(30, -1, -1, -1, -1)
        def at_half_past_every_hour():
            ...
    """

    def register(func: _Job) -> _Job:
        add_cron(func, 0, min, hour, day, mon, wday)
        return func

    return register


def timer(period_seconds: float) -> Callable[[_Job], _Job]:
    """Runs the decorated function, without arguments, every so many seconds, from start to start, in one process.

    The first run is one period after the start of the server. The function itself is returned unchanged.

        @hoopsnake.timer(30)
        def every_thirty_seconds():
            ...
    """
    if period_seconds == 0:
        raise ValueError("a timer's period must be more than 0 seconds")

    def register(func: _Job) -> _Job:
        add_cron(func, period_seconds, -1, -1, -1, -1, -1)
        return func

    return register


def notify_parked(channels: str, action: int, arg: Optional[str] = None, /) -> None:
    """Wakes every request parked on one of ``channels`` (separated by commas). May be called from any thread.

    ``action``: :data:`RETRY` calls the application again, with ``arg`` in ``HTTP_X_WSGO_PARK_ARG``; :data:`HTTP_204`
    and :data:`HTTP_504` answer; :data:`DISCONNECT` closes the connection.
    """
    if not isinstance(channels, str):
        raise TypeError(f"channels must be a str, not {type(channels).__name__}")
    if not isinstance(action, int):
        raise TypeError(f"action must be an int, not {type(action).__name__}")
    if arg is not None and not isinstance(arg, str):
        raise TypeError(f"arg must be a str, not {type(arg).__name__}")
    if action not in (DISCONNECT, RETRY, HTTP_204, HTTP_504):
        raise ValueError(f"action {action} is none of DISCONNECT, RETRY, HTTP_204 and HTTP_504")
    _call("notify_parked", channels, action, arg or "")


def _extension() -> Optional[ModuleType]:
    try:
        from hoopsnake import _core
    except ImportError:  # the sources without the extension, or that of another Python
        return None
    return _core


def _call(name: str, *arguments: Any) -> None:
    """Calls the extension's function, if the server is there: who isn't the server hasn't loaded the extension."""
    function = getattr(sys.modules.get("hoopsnake._core"), name, None)
    if function is not None:
        function(*arguments)
