"""`--reload`: code is edited, and the new code serves; broken code doesn't; no request fails meanwhile."""

import contextlib
import os
import re
import threading
import time

import pytest
import requests
from serving import CLIENT_S, serving

WSGI = """
from package import views

from wsgiref.validate import validator


@validator
def application(environ, start_response):
    if environ["PATH_INFO"] == "/late":
        import late
        body = late.TEXT.encode()
    elif environ["PATH_INFO"] == "/template":
        with open("templates/page.html", "rb") as page:
            body = TEMPLATE or page.read()
    else:
        body = views.text().encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


TEMPLATE = open("templates/page.html", "rb").read()
"""


def views(text):
    return f"def text():\n    return {text!r}\n"


@pytest.fixture
def folder(tmp_path):
    for path, text in {
        "site_of_mine.py": WSGI,
        "package/__init__.py": "",
        "package/views.py": views("old"),
        "late.py": "TEXT = 'late'\n",
        "templates/page.html": "old page",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def replace(path, text):
    """As most editors save: a new file, renamed over the old one."""
    aside = path.with_name(f".{path.name}.new~")
    aside.write_text(text)
    aside.rename(path)


class Asking:
    """A client that never stops asking, by kept and by new connections; every answer must be a 200."""

    def __init__(self, url):
        self._url = url
        self._changed = threading.Condition()
        self._last = None
        self._failures = []
        self._asked = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(kept,)) for kept in (True, False)]
        for thread in self._threads:
            thread.start()

    def _ask(self, kept):
        with requests.Session() as session:
            while not self._stop.is_set():
                headers = {} if kept else {"Connection": "close"}
                try:
                    answer = session.get(self._url, timeout=CLIENT_S, headers=headers)
                    failure = None if answer.status_code == 200 else f"status {answer.status_code}"
                except requests.ConnectionError as error:
                    # RFC 9112 §9.3.1: a kept connection may be closed while a request is on its way; it is asked again.
                    if kept and "RemoteDisconnected" in repr(error):
                        continue
                    failure = repr(error)
                with self._changed:
                    self._asked += 1
                    if failure:
                        self._failures.append(failure)
                    else:
                        self._last = answer.text
                    self._changed.notify_all()

    def wait_for(self, text):
        with self._changed:
            self._changed.wait_for(lambda: self._last == text or self._failures, CLIENT_S)
            assert not self._failures
            assert self._last == text

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self._failures
        assert self._asked > 20


def served(server, path, text):
    """Waits until it is: the processes that leave still answer what they have been given."""
    until = time.monotonic() + CLIENT_S
    while requests.get(server.url + path, timeout=CLIENT_S).text != text:
        assert time.monotonic() < until, f"{text!r} isn't served"


@contextlib.contextmanager
def reloading(driver, folder, *arguments):
    with serving(driver, "site_of_mine", "--reload", *arguments, cwd=folder) as server:
        asking = Asking(server.url)
        try:
            yield server, asking
        finally:
            asking.end()


def test_edits_are_served_and_no_request_fails(folder, driver):
    path = folder / "package" / "views.py"
    with reloading(driver, folder, "--processes", "2") as (_, asking):
        asking.wait_for("old")
        # As long as the one before, within the same second: a stale .pyc would go unnoticed.
        for text in ("one", "two", "six"):
            path.write_text(views(text))
            asking.wait_for(text)
        replace(path, views("renamed over"))
        asking.wait_for("renamed over")
        path.unlink()
        path.write_text(views("made anew"))
        asking.wait_for("made anew")
    assert not list(folder.rglob("*.pyc"))


def test_broken_code_is_told_and_the_old_goes_on(folder, driver):
    path = folder / "package" / "views.py"
    with reloading(driver, folder) as (server, asking):
        asking.wait_for("old")
        mark = server.error_log.mark()
        path.write_text("def text(:\n")
        server.error_log.wait_for("SyntaxError", mark)
        server.error_log.wait_for("reload failed", mark)
        assert "views.py" in server.error_log.text(mark)
        asking.wait_for("old")
        path.write_text(views("mended"))
        asking.wait_for("mended")
        mark = server.error_log.mark()
        # It breaks in a package that is new, and nobody has imported before.
        (folder / "fresh").mkdir()
        (folder / "fresh" / "__init__.py").write_text("1 / 0\n")
        path.write_text("import fresh\n" + views("with a new package"))
        server.error_log.wait_for("ZeroDivisionError", mark)
        server.error_log.wait_for("reload failed", mark)
        asking.wait_for("mended")
        (folder / "fresh" / "__init__.py").write_text("")
        asking.wait_for("with a new package")


def test_modules_imported_later(folder, driver):
    (folder / "lib").mkdir()
    (folder / "late.py").rename(folder / "lib" / "late.py")
    with reloading(driver, folder, "--pythonpath", "lib") as (server, asking):
        asking.wait_for("old")
        assert requests.get(server.url + "/late", timeout=CLIENT_S).text == "late"
        late = folder / "lib" / "late.py"
        # The list of modules is told once a second; an edit before that isn't missed, but it isn't known to be one yet.
        changed = re.compile(f"changed: .*{re.escape(os.fspath(late))}")
        for _ in range(CLIENT_S * 4):
            replace(late, "TEXT = 'later'\n")
            if changed.search(server.error_log.text()):
                break
            # Nothing tells that the list was read: it is edited until it was.
            time.sleep(0.25)
        served(server, "/late", "later")


def test_what_does_not_count(folder):
    with reloading("epoll", folder) as (server, asking):
        asking.wait_for("old")
        for name in (".views.py.swp", "views.py~", "#views.py#", "views.pyc", "notes.txt", "4913"):
            (folder / "package" / name).write_text("x")
        (folder / "templates" / "page.html").write_text("new page")
        # What counts comes after it, so that it would have been told by then.
        (folder / "package" / "views.py").write_text(views("new"))
        asking.wait_for("new")
        told = [line for line in server.error_log.text().splitlines() if "changed: " in line]
        assert len(told) == 1
        assert told[0].endswith(f"changed: {folder / 'package' / 'views.py'}")


def test_extra_paths(folder, driver):
    with reloading(driver, folder, "--reload-extra", "templates") as (server, asking):
        asking.wait_for("old")
        mark = server.error_log.mark()
        replace(folder / "templates" / "page.html", "new page")
        server.error_log.wait_for("changed: .*page.html", mark)
        server.error_log.wait_for("reloaded", mark)
        served(server, "/template", "new page")
