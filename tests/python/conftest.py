"""Fixtures of the tests that run a server."""

import ctypes
import errno
import os

import pytest

DRIVERS = ("ring", "epoll", "tokio-uring")
# io_uring_setup(2): the same number on every architecture.
IO_URING_SETUP = 425
IO_URING_PARAMS_BYTES = 120


def _io_uring_refusal():
    """Why this kernel (or the container's seccomp profile) gives no ring; None if it does."""
    libc = ctypes.CDLL(None, use_errno=True)
    params = ctypes.create_string_buffer(IO_URING_PARAMS_BYTES)
    fd = libc.syscall(ctypes.c_long(IO_URING_SETUP), ctypes.c_uint(4), params)
    if fd < 0:
        return errno.errorcode.get(ctypes.get_errno(), "an error")
    os.close(fd)
    return None


@pytest.fixture(scope="session", params=DRIVERS)
def driver(request):
    """Each driver of the reactor in turn; everything that serves runs on all of them."""
    refusal = _io_uring_refusal() if request.param != "epoll" else None
    if refusal:
        pytest.skip(f"io_uring isn't allowed on this machine ({refusal}), and {request.param} needs it")
    return request.param
