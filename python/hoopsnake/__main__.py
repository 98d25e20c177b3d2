"""The command ``hoopsnake``: hands the command line to the extension, or says why there is none."""

import glob
import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Optional

__all__ = ["main"]

EXIT_NO_EXTENSION = 1


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Runs the server with ``argv`` (by default the command line's arguments) until it is stopped.

    Returns the exit status. The application sees a ``sys.argv`` that holds the program's name alone: the arguments
    are the server's, and frameworks that look for a sub-command there must not find one.
    """
    try:
        from hoopsnake import _core
    except ImportError as error:
        print(f"hoopsnake: {_why_not(error)}", file=sys.stderr)
        return EXIT_NO_EXTENSION
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.argv = sys.argv[:1] or ["hoopsnake"]
    return _core.main(arguments)


def _why_not(error: ImportError) -> str:
    """One sentence on why the extension can't be imported, and what to do."""
    here = os.path.dirname(os.path.abspath(__file__))
    built = sorted(os.path.basename(path) for path in glob.glob(os.path.join(glob.escape(here), "_core*.so")))
    python = f"Python {sys.version_info.major}.{sys.version_info.minor} ({sys.executable})"
    remedy = f"Install Hoopsnake with this Python: {sys.executable} -m pip install hoopsnake"
    if not built:
        return f"the extension hoopsnake._core is missing from {here}. {remedy} (in a source folder: make run)."
    if not any(name == "_core" + suffix for name in built for suffix in EXTENSION_SUFFIXES):
        return f"it is installed for another Python ({', '.join(built)}), and this is {python}. {remedy}."
    return f"the extension {built[0]} can't be loaded by {python}: {error}. {remedy}."


if __name__ == "__main__":
    sys.exit(main())
