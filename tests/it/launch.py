"""Puts a command in its own place after arranging something that a shell can't.

    launch.py ARRANGEMENT ARGUMENTS…     runs this Python with ARGUMENTS

fd             descriptor 3 is a listening socket on a free port of 127.0.0.1
systemd        likewise, and LISTEN_PID and LISTEN_FDS say so, as systemd's socket activation does
no-io-uring    io_uring_setup is refused with EPERM, as many container runtimes do
no-memfd       memfd_create likewise
"""

import ctypes
import os
import platform
import socket
import struct
import sys

# The system call has this number on every architecture that came to Linux with it.
NR_IO_URING_SETUP = 425
NR_MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ERRNO = 0x00050000
BPF_LOAD_WORD_ABSOLUTE = 0x20
BPF_JUMP_IF_EQUAL = 0x15
BPF_RETURN = 0x06
EPERM = 1


def listen() -> None:
    listener = socket.create_server(("127.0.0.1", 0)).detach()
    if listener == 3:
        os.set_inheritable(3, True)
    else:
        os.dup2(listener, 3, inheritable=True)


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def refuse(number: int) -> None:
    instructions = [
        (BPF_LOAD_WORD_ABSOLUTE, 0, 0, 0),
        (BPF_JUMP_IF_EQUAL, 0, 1, number),
        (BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | EPERM),
        (BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    program = Program(len(instructions), code)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")


def main() -> None:
    arrangement, *arguments = sys.argv[1:]
    if arrangement in ("fd", "systemd"):
        listen()
    if arrangement == "systemd":
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.environ["LISTEN_FDS"] = "1"
    if arrangement == "no-io-uring":
        refuse(NR_IO_URING_SETUP)
    if arrangement == "no-memfd":
        refuse(NR_MEMFD_CREATE[platform.machine()])
    os.execv(sys.executable, [sys.executable, *arguments])


main()
