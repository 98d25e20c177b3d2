"""What applications do with the response cache. Outside the server there is none, and nothing to purge."""

import sys
from typing import Optional


def cache_purge(url: Optional[str] = None, /, *, prefix: Optional[str] = None, all: bool = False) -> int:
    """Takes stored responses out of the cache, and returns how many there were, for all processes of the server.

    Exactly one of these is to be given:

    - ``url``: one page, as ``"https://example.com/shop?page=2"`` (of either scheme), or as a path such as ``"/shop"``,
      which means that page at every host;
    - ``prefix``: all pages whose URL, or path at every host, begins so; ``"https://example.com"`` is a whole host;
    - ``all=True``: everything.

    A response that is being made meanwhile isn't stored.
    Raises ``TypeError`` when nothing or more than one thing is given, ``ValueError`` for what is neither URL nor path.
    """
    if [url is not None, prefix is not None, all].count(True) != 1:
        raise TypeError("cache_purge() takes a URL, prefix=... or all=True: exactly one of them")
    for text in (url, prefix):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"cache_purge() takes a str, not {type(text).__name__}")
    # Who isn't the server hasn't loaded the extension.
    core = sys.modules.get("hoopsnake._core")
    return 0 if core is None else int(core.cache_purge(url, prefix))
