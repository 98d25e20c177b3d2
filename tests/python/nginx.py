"""nginx, as the tests start it: in the foreground, with a configuration of theirs."""

import contextlib
import os
import shutil
import socket
import subprocess
import time

from serving import CLIENT_S, STOP_S, Lines

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
PORTS_TRIED_MAX = 5

# What every nginx of the tests is told; it writes nothing outside its folder.
AROUND = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr {told};
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    %s
}}
"""


@contextlib.contextmanager
def nginx(folder, configuration, told="warn", **values):
    """nginx with `configuration` for its http block, a format of `folder`, `port` and `values`; its port.

    It can't say which port it took, so a free one is looked for. In the end it must have had nothing to complain about
    from the level `told` of its log on.
    """
    for _ in range(PORTS_TRIED_MAX):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        text = (AROUND % configuration).format(folder=folder, port=port, told=told, **values)
        (folder / "nginx.conf").write_text(text)
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
    for _ in range(100 * CLIENT_S):
        if process.poll() is not None:
            return False
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), CLIENT_S).close()
            return process.poll() is None
        # It doesn't say when it listens.
        time.sleep(0.01)
    raise AssertionError("nginx neither listens nor ends")
