"""The response cache as an application uses it: its fields, and `hoopsnake.cache_purge`."""

import json
import subprocess
import sys
import urllib.parse
import urllib.request

import pytest
from serving import APPLICATIONS, CLIENT_S, serving

import hoopsnake


@pytest.fixture(scope="module")
def server(driver):
    with serving(driver, "cached", "--max-age", "60", "--cache-status", cwd=APPLICATIONS) as running:
        yield running


def get(server, path, cookie=None):
    """Body and X-Cache."""
    request = urllib.request.Request(server.url + path, headers={"Cookie": cookie} if cookie else {})
    with urllib.request.urlopen(request, timeout=CLIENT_S) as response:
        assert "X-WSGo-Vary-Cookies" not in response.headers
        return response.read().decode(), response.headers["X-Cache"]


def purge(server, **query):
    return json.loads(get(server, "/purge?" + urllib.parse.urlencode(query))[0])


def test_a_page_for_each_session(server):
    assert get(server, "/sessions", "session=one; theme=dark") == ("1 session=one; theme=dark", "MISS")
    assert get(server, "/sessions", "theme=light; session=one") == ("1 session=one; theme=dark", "HIT")
    assert get(server, "/sessions", "session=two") == ("2 session=two", "MISS")
    assert get(server, "/sessions") == ("3 ", "MISS")
    assert get(server, "/sessions", "theme=light") == ("3 ", "HIT")


def test_purge(server):
    purge(server, all="1")
    pages = ["/a", "/a/b", "/b"]

    def cached():
        return [page for page in pages if get(server, page)[1] == "HIT"]

    assert cached() == []
    assert cached() == pages
    assert purge(server, url=server.url + "/a") == 1
    assert cached() == ["/a/b", "/b"]
    assert purge(server, url="/a") == 1
    assert purge(server, url="/a") == 0
    assert purge(server, prefix="/a") == 1
    assert cached() == ["/b"]
    assert purge(server, prefix=server.url) == 3
    assert cached() == []
    assert purge(server, all="1") == 3
    assert purge(server, url="a").startswith("ValueError: give an http or https URL")


def test_purge_outside_the_server():
    assert hoopsnake.cache_purge("/a") == hoopsnake.cache_purge(prefix="/") == hoopsnake.cache_purge(all=True) == 0
    for arguments, keywords in [((), {}), (("/a",), {"prefix": "/"}), (("/a",), {"all": True}), ((5,), {})]:
        with pytest.raises(TypeError):
            hoopsnake.cache_purge(*arguments, **keywords)


def test_the_extension_is_not_loaded_for_it():
    program = "import hoopsnake, sys; hoopsnake.cache_purge('/a'); sys.exit('hoopsnake._core' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=CLIENT_S, check=False).returncode == 0
