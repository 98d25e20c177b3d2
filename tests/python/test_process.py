"""The environment that the application gets, and the list of files that autoreload watches."""

import os
import subprocess
import sys
import textwrap

import pytest
from serving import CLIENT_S, clean_environment

from hoopsnake import _process


def test_the_environment(monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setenv("KEPT", "as it was")
    for name in ("GIVEN", "BYTES"):
        monkeypatch.delenv(name, raising=False)
    given = [(b"GIVEN", b"1"), (b"BYTES", b"\xff="), (b"GIVEN", b"2")]
    _process.prepare_environment(given, ["NOTIFY_SOCKET", "NOT_THERE"])
    assert "NOTIFY_SOCKET" not in os.environ
    assert os.environ["KEPT"] == "as it was"
    assert os.environ["GIVEN"] == "2"
    assert os.environb[b"BYTES"] == b"\xff="
    child = [sys.executable, "-c", "import os; print(os.getenv('GIVEN'), os.getenv('NOTIFY_SOCKET'))"]
    assert subprocess.run(child, capture_output=True, text=True, timeout=CLIENT_S).stdout == "2 None\n"


@pytest.fixture
def told(tmp_path):
    """Runs a script beside some modules; the lines it prints."""
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "inner" / "deep.py").write_text("")
    (tmp_path / "namespace").mkdir()
    (tmp_path / "namespace" / "part.py").write_text("")
    (tmp_path / "broken.py").write_text("import package\ndef f(:\n")
    (tmp_path / "fails.py").write_text("import package\n\n1 / 0\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "package" / "__init__.py")

    def run(script):
        start = """
            import os, sys
            sys.path.insert(0, os.getcwd())
            from hoopsnake._process import Files
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            os.set_blocking(writer, False)
            files = Files(writer)
            here = os.path.realpath(os.getcwd())

            def told(error=None):
                files.tell(error)
                try:
                    data = os.read(reader, 1 << 20)
                except BlockingIOError:
                    data = b""
                paths = sorted(path.decode() for path in data.split(b"\\0")[:-1])
                return [os.path.relpath(path, here) for path in paths if path.startswith(here)], paths
        """
        command = [sys.executable, "-c", textwrap.dedent(start) + textwrap.dedent(script)]
        environment = {**clean_environment(), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=CLIENT_S)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_modules_are_told_once_and_later_ones_later(told):
    assert told(
        """
        print(told()[0])
        import package, json
        print(told()[0])
        print(told()[0])
        import package.inner.deep
        import namespace.part
        print(told()[0])
        """
    ) == [
        "[]",
        "['package/__init__.py']",
        "[]",
        "['namespace/__init__.py', 'namespace/part.py', 'package/inner/__init__.py', 'package/inner/deep.py']",
    ]


def test_the_library_is_left_out(told):
    assert told(
        """
        import email.message, json.decoder, sysconfig
        paths = told()[1]
        print([path for path in paths if path.startswith(os.path.dirname(json.__file__))])
        print(any("hoopsnake" in path for path in paths))
        """
    ) == ["[]", "True"]


def test_a_link_is_told_with_what_it_leads_to(told):
    assert told("import link; print(told()[0])") == ["['link.py', 'package/__init__.py']"]


def test_what_fails_is_told_too(told):
    assert told(
        """
        for name in ("broken", "fails"):
            try:
                __import__(name)
            except Exception as error:
                print(told(error)[0])
        """
    ) == ["['broken.py']", "['fails.py', 'package/__init__.py']"]


def test_what_does_not_fit_is_told_next_time(told):
    assert told(
        """
        import fcntl, types
        fcntl.fcntl(writer, 1031, 4096)  # F_SETPIPE_SZ
        for number in range(500):
            module = types.ModuleType(f"m{number}")
            module.__file__ = f"{here}/m{number}.py"
            sys.modules[module.__name__] = module
        found = set()
        looks = 0
        while len(found) < 500:
            found.update(path for path in told()[0])
            looks += 1
        print(looks > 1, len(found))
        """
    ) == ["True 500"]


def test_strange_modules_do_no_harm(told):
    assert told(
        """
        class Strange:
            def __getattr__(self, name):
                raise RuntimeError(name)

        import types
        sys.modules.update(strange=Strange(), nothing=None, number=7)
        for number, path in enumerate(("<string>", "", b"/x", "/" + "x" * 5000, "/a\\0b")):
            sys.modules[f"m{number}"] = module = types.ModuleType("m")
            module.__file__ = path
        print(told()[0])
        """
    ) == ["[]"]
