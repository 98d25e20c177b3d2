"""Hoopsnake: a WSGI server for Linux. One I/O reactor per core, one shared pool of Python threads.

Run it with ``hoopsnake module:callable`` or ``python -m hoopsnake module:callable``. The server itself is the
extension ``hoopsnake._core``; importing this package doesn't load it.
"""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("hoopsnake")
except PackageNotFoundError:  # the source folder is on sys.path, and nothing is installed
    __version__ = "0+source"

del PackageNotFoundError, version
