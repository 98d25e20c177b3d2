"""The server: the extension built from src/."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["add_cron", "cache_purge", "main", "notify_parked"]

def add_cron(func: Callable[[], object], period: float, min: int, hour: int, day: int, mon: int, wday: int, /) -> None:
    """Registers a job: a timer if ``period`` (seconds) is not 0, otherwise a cron job."""

def cache_purge(url: str | None = None, prefix: str | None = None) -> int:
    """Takes one page, those that begin so, or (with neither) everything out of the cache; how many that were."""

def main(argv: list[str]) -> int:
    """Runs the server with these arguments (without the program's name) until it is stopped; the exit status."""

def notify_parked(channels: str, action: int, arg: str | None, /) -> None:
    """Wakes the requests that are parked on one of ``channels`` (separated by commas)."""
