"""A file, uploaded by each of the clients that the tests of the example sites use."""

import json

import httpx
import requests
from serving import CLIENT_S, curl

CLIENTS = ("requests", "httpx", "curl")


def uploaded(client, url, data, folder):
    """What the site answers to `data` as the form's field `file`; curl sends it from a file in `folder`."""
    if client == "curl":
        path = folder / "a.bin"
        path.write_bytes(data)
        return json.loads(curl("--form", f"file=@{path}", url))
    library = {"requests": requests, "httpx": httpx}[client]
    return library.post(url, files={"file": ("a.bin", data)}, timeout=CLIENT_S).json()
