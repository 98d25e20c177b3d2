"""What applications import, outside the server: it checks what it is given, and does nothing."""

import subprocess
import sys

import pytest

import hoopsnake
import wsgo


def job():
    raise AssertionError("nobody runs it here")


def test_wsgo_is_hoopsnake_by_another_name():
    assert set(wsgo.__all__) == set(hoopsnake.__all__) - {"__version__"}
    assert all(getattr(wsgo, name) is getattr(hoopsnake, name) for name in wsgo.__all__)
    assert (wsgo.DISCONNECT, wsgo.RETRY, wsgo.HTTP_204, wsgo.HTTP_504) == (0, 1, 2, 3)
    assert issubclass(wsgo.RequestTimeoutException, Exception)
    assert repr(wsgo.RequestTimeoutException) == "<class 'hoopsnake.RequestTimeoutException'>"


def test_importing_loads_no_extension():
    code = "import wsgo, hoopsnake, sys; sys.exit('hoopsnake._core' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_decorators_return_the_function():
    assert wsgo.cron(30, -1, -1, -1, -1)(job) is job
    assert wsgo.cron(min=-15, hour=23, day=31, mon=12, wday=7)(job) is job
    assert wsgo.timer(30)(job) is job
    assert wsgo.timer(period_seconds=0.5)(job) is job
    assert wsgo.add_cron(job, 0, -1, -1, -1, -1, -1) is None
    # As wsgo itself registers a timer: the fields don't count.
    assert wsgo.add_cron(job, 30, 0, 0, 0, 0, 0) is None


def test_without_the_extension_nothing_fails():
    code = (
        "import sys; sys.modules['hoopsnake._core'] = None; import wsgo; f = lambda: None;"
        "assert wsgo.cron(0, 0, 1, 1, -1)(f) is f; assert wsgo.timer(1)(f) is f; wsgo.notify_parked('a', 1)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: wsgo.cron(0, 0, -1, -1),
        lambda: wsgo.cron(0, 0, -1, -1, -1, -1),
        lambda: wsgo.cron(0, 0, -1, -1, -1)(None),
        lambda: wsgo.cron("0", 0, -1, -1, -1)(job),
        lambda: wsgo.cron(0, 0.5, -1, -1, -1)(job),
        lambda: wsgo.cron(0, 0, None, -1, -1)(job),
        lambda: wsgo.timer(),
        lambda: wsgo.timer("30")(job),
        lambda: wsgo.timer(None)(job),
        lambda: wsgo.timer(30)("job"),
        lambda: wsgo.add_cron(job, 30),
        lambda: wsgo.add_cron(job, 0, 0, 0, -1, -1),
        lambda: wsgo.notify_parked("channel"),
        lambda: wsgo.notify_parked(b"channel", wsgo.RETRY, ""),
        lambda: wsgo.notify_parked("channel", "1", ""),
        lambda: wsgo.notify_parked("channel", wsgo.RETRY, b""),
        lambda: wsgo.notify_parked("channel", wsgo.RETRY, "", ""),
        lambda: wsgo.cache_purge(),
        lambda: wsgo.cache_purge(b"/"),
    ],
)
def test_wrong_calls_are_type_errors(call):
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ((60, 0, -1, -1, -1), "min=60 is out of range: 0 to 59, -1 for any, or -2 to -60 for every so many"),
        ((0, 24, -1, -1, -1), "hour=24 is out of range"),
        ((0, 0, 0, -1, -1), "day=0 is out of range"),
        ((0, 0, 32, -1, -1), "day=32 is out of range"),
        ((0, 0, -1, 13, -1), "mon=13 is out of range"),
        ((0, 0, -1, -1, 8), "wday=8 is out of range"),
        ((-61, 0, -1, -1, -1), "min=-61 is out of range"),
        ((0, 0, 2**80, -1, -1), "day is out of range"),
        ((0, 0, 31, 2, -1), "day=31 never comes in mon=2"),
        ((0, 0, 31, 4, -1), "day=31 never comes in mon=4"),
    ],
)
def test_dates_that_never_come_are_value_errors(fields, sentence):
    with pytest.raises(ValueError) as raised:
        wsgo.cron(*fields)(job)
    assert sentence in str(raised.value)


@pytest.mark.parametrize("period", [0, -1, 0.001, 1e12, float("nan"), float("inf")])
def test_impossible_periods_are_value_errors(period):
    with pytest.raises(ValueError):
        wsgo.timer(period)(job)


@pytest.mark.parametrize("action", [-1, 4])
def test_unknown_actions_are_value_errors(action):
    with pytest.raises(ValueError):
        wsgo.notify_parked("channel", action, "")


def test_there_are_no_parked_requests_to_wake():
    assert wsgo.notify_parked("channel", wsgo.RETRY, "argument") is None
    assert wsgo.notify_parked("channel, other", wsgo.HTTP_204, None) is None
    assert wsgo.notify_parked("channel", wsgo.DISCONNECT) is None
