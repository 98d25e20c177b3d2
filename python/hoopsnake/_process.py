"""What the server asks of Python around an application's life as a process: its environment, and the files it loads.

Called by the extension only.
"""

import os
import sys
import sysconfig
import types
from collections.abc import Iterable, Sequence
from typing import Optional

__all__ = ["Files", "open_standard_streams", "prepare_environment"]

# How deep a chain of causes is followed for the files of an exception.
CAUSES_MAX = 16
# Longer paths aren't reported: the extension's WATCHED_PATH_BYTES_MAX, with the NUL.
PATH_BYTES_MAX = 4095


def open_standard_streams() -> None:
    """Python has no stream for a descriptor that was closed when it started. Now all three are open: each gets one."""
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)


def prepare_environment(given: Sequence[tuple[bytes, bytes]], removed: Sequence[str]) -> None:
    """Takes out what is meant for the server alone, then sets what the operator gave; of one name the last counts."""
    for variable in removed:
        os.environ.pop(variable, None)
    for name, value in given:
        os.environb[name] = value


class Files:
    """Tells, over a descriptor, which files the application has loaded: each path once, a NUL behind each.

    The descriptor doesn't block: what it doesn't take is told next time.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._modules: set[str] = set()
        self._told: set[bytes] = set()
        self._left: list[bytes] = []
        # The interpreter's own library doesn't change.
        self._library = tuple(
            os.path.join(os.path.realpath(sysconfig.get_path(name)), "") for name in ("stdlib", "platstdlib")
        )
        self._packages = tuple(
            os.path.join(os.path.realpath(sysconfig.get_path(name)), "") for name in ("purelib", "platlib")
        )

    def tell(self, error: Optional[BaseException] = None) -> None:
        """Tells of the modules that came since the last time and, after a failed import, of those in its traceback."""
        new = sys.modules.keys() - self._modules
        if new:
            self._modules |= new
            self._add(path for name in new for path in _paths_of(sys.modules.get(name)))
        if error is not None:
            self._add(_paths_in(error))
        while self._left:
            try:
                os.write(self._descriptor, self._left[-1])
            except BlockingIOError:
                return
            self._left.pop()

    def _add(self, paths: Iterable[str]) -> None:
        for path in paths:
            if not path or path.startswith("<") or "\0" in path:
                continue
            path = os.path.abspath(path)
            for each in {path, os.path.realpath(path)}:
                if each.startswith(self._library) and not each.startswith(self._packages):
                    continue
                encoded = os.fsencode(each)
                if encoded not in self._told and len(encoded) <= PATH_BYTES_MAX:
                    self._told.add(encoded)
                    self._left.append(encoded + b"\0")


def _paths_of(module: Optional[types.ModuleType]) -> Iterable[str]:
    """The file of a module; the folders of a package that is in several, or has no ``__init__``."""
    try:
        path = getattr(module, "__file__", None)
        if isinstance(path, str):
            # A module that has no source is its compiled file.
            yield path[:-1] if path.endswith(".pyc") and os.path.exists(path[:-1]) else path
        elif module is not None:
            for folder in list(getattr(module, "__path__", ())):
                if isinstance(folder, str):
                    yield os.path.join(folder, "__init__.py")
    except Exception:  # whatever an application has put into sys.modules
        return


def _paths_in(error: BaseException) -> Iterable[str]:
    """The files in the traceback of an exception and of its causes; the one that couldn't be parsed."""
    link: Optional[BaseException] = error
    for _ in range(CAUSES_MAX):
        if link is None:
            return
        trace = link.__traceback__
        while trace is not None:
            yield trace.tb_frame.f_code.co_filename
            trace = trace.tb_next
        if isinstance(link, SyntaxError) and link.filename:
            yield link.filename
        link = link.__cause__ or link.__context__
