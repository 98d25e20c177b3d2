"""nginx, as the tests start it: in the foreground, with a configuration of theirs."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading

from serving import CLIENT_S, STOP_S, Lines

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
PORTS_TRIED_MAX = 5


@contextlib.contextmanager
def nginx(folder, configuration, **values):
    """nginx with `configuration`, a format of `folder`, `port` and `values`; its port.

    It can't say which port it took, so a free one is looked for. In the end it must have had nothing to complain about.
    """
    for _ in range(PORTS_TRIED_MAX):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        (folder / "nginx.conf").write_text(configuration.format(folder=folder, port=port, **values))
        command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        errors = Lines(process.stderr, "nginx")
        if listens(process, port):
            break
        process.wait(STOP_S)
    else:
        raise AssertionError(f"nginx didn't start: {errors.text()}")
    try:
        yield port
    finally:
        process.terminate()
        process.wait(STOP_S)
        errors.join()
    assert "[error]" not in errors.text(), errors.text()


def listens(process, port):
    """Whether nginx accepts connections; False when it has ended."""
    pause = threading.Event()
    for _ in range(100 * CLIENT_S):
        if process.poll() is not None:
            return False
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), CLIENT_S).close()
            return process.poll() is None
        pause.wait(0.01)
    raise AssertionError("nginx neither listens nor ends")
