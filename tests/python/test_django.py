"""The Django example as a real site, driven by requests, httpx and curl."""

import concurrent.futures
import re
import shutil
import subprocess
import sys

import httpx
import pytest
import requests
from serving import APPLICATIONS, CLIENT_S, EXAMPLES, MIB, clean_environment, curl, random_bytes, serving, sha256
from uploads import CLIENTS, uploaded

SITE = EXAMPLES / "django_site"
SETTINGS = {"DJANGO_SETTINGS_MODULE": "site_project.settings", "PYTHONPATH": str(APPLICATIONS)}
USER, PASSWORD = "admin", "correct horse battery staple"
UPLOAD_BYTES = 20 * MIB
WORKERS = 4
# What the views /stream and /download repeat.
LINE = b"0123456789abcdef" * 64


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """A folder with a migrated database in it, made by the site's own manage.py."""
    folder = tmp_path_factory.mktemp("django")
    environment = {**clean_environment(), **SETTINGS, "DJANGO_SITE_DATA": str(folder)}
    environment["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    superuser = ["createsuperuser", "--noinput", "--username", USER, "--email", "admin@example.com"]
    for command in (["migrate", "--verbosity", "0"], superuser):
        command = [sys.executable, str(SITE / "manage.py"), *command]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=4 * CLIENT_S)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def site(driver, database, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"django-{driver}") / "data"
    shutil.copytree(database, folder)
    environment = {**SETTINGS, "DJANGO_SITE_DATA": str(folder)}
    arguments = ("--chdir", str(SITE), "--workers", str(WORKERS))
    with serving(driver, "django_more", *arguments, cwd=folder, environment=environment) as server:
        yield server


@pytest.fixture
def browser(site):
    with requests.Session() as session:
        yield session


def token(page):
    return re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[1]


def test_hello_by_every_client(site):
    assert curl(site.url + "/") == b"Hello, World!"
    assert httpx.get(site.url + "/", timeout=CLIENT_S).text == "Hello, World!"
    response = requests.get(site.url + "/", timeout=CLIENT_S)
    assert response.text == "Hello, World!"
    assert response.headers["Content-Length"] == "13"


def test_admin(site, browser):
    form = browser.get(site.url + "/admin/", timeout=CLIENT_S)
    assert form.url.endswith("/admin/login/?next=/admin/")
    fields = {"csrfmiddlewaretoken": token(form.text), "username": USER, "password": "wrong", "next": "/admin/"}
    assert "Please enter the correct username" in browser.post(form.url, data=fields, timeout=CLIENT_S).text
    index = browser.post(form.url, data={**fields, "password": PASSWORD}, timeout=CLIENT_S)
    assert index.url == site.url + "/admin/"
    assert "Site administration" in index.text

    form = browser.get(site.url + "/admin/notes/note/add/", timeout=CLIENT_S)
    fields = {"csrfmiddlewaretoken": token(form.text), "text": "añadido por el admin", "_save": "Save"}
    listed = browser.post(form.url, data=fields, timeout=CLIENT_S)
    assert listed.url == site.url + "/admin/notes/note/"
    assert "was added successfully" in listed.text
    assert "Signed in as admin." in browser.get(site.url + "/page", timeout=CLIENT_S).text
    assert "Not signed in." in requests.get(site.url + "/page", timeout=CLIENT_S).text

    fields = {"csrfmiddlewaretoken": token(index.text)}
    assert "Logged out" in browser.post(site.url + "/admin/logout/", data=fields, timeout=CLIENT_S).text
    assert "/admin/login/" in browser.get(site.url + "/admin/", timeout=CLIENT_S).url


def test_sessions(site):
    with requests.Session() as one, httpx.Client(timeout=CLIENT_S) as other:
        for number in (1, 2, 3):
            assert one.get(site.url + "/count", timeout=CLIENT_S).json()["count"] == number
            assert other.get(site.url + "/count").json()["count"] == number


def test_form_with_csrf_token(site, browser):
    form = browser.get(site.url + "/notes", timeout=CLIENT_S)
    fields = {"csrfmiddlewaretoken": token(form.text), "text": "a note <of> mine"}
    page = browser.post(site.url + "/notes", data=fields, timeout=CLIENT_S)
    assert [step.status_code for step in page.history] == [302]
    assert "a note &lt;of&gt; mine" in page.text
    assert requests.post(site.url + "/notes", data=fields, timeout=CLIENT_S).status_code == 403


@pytest.mark.parametrize("client", CLIENTS)
def test_upload(site, client, tmp_path):
    data = random_bytes(UPLOAD_BYTES)
    answer = uploaded(client, site.url + "/upload", data, tmp_path)
    assert answer == {"name": "a.bin", "size": UPLOAD_BYTES, "sha256": sha256(data)}


@pytest.mark.parametrize("view", ["stream", "download"])
def test_download(site, view):
    """A generator without a length, and a file that Django hands to wsgi.file_wrapper."""
    size = 20 * MIB + 123
    expected = sha256((LINE * (size // len(LINE) + 1))[:size])
    url = f"{site.url}/{view}?bytes={size}"
    with requests.get(url, stream=True, timeout=CLIENT_S) as response:
        assert response.headers.get("Content-Length") == (str(size) if view == "download" else None)
        content = b"".join(response.iter_content(100_000))
    assert len(content) == size
    assert sha256(content) == expected
    assert sha256(httpx.get(url, timeout=CLIENT_S).content) == expected
    assert sha256(curl(url)) == expected
    assert sha256(curl("--http1.0", url)) == expected
    assert httpx.head(url, timeout=CLIENT_S).content == b""


def test_file_response_is_named(site):
    response = requests.get(site.url + "/download?bytes=10", timeout=CLIENT_S)
    assert response.content == LINE[:10]
    assert response.headers["Content-Disposition"] == 'attachment; filename="numbers.txt"'


def test_conditional_get(site):
    first = requests.get(site.url + "/page", timeout=CLIENT_S)
    assert first.status_code == 200
    with requests.Session() as session:
        for _ in range(2):
            again = session.get(site.url + "/page", headers={"If-None-Match": first.headers["ETag"]}, timeout=CLIENT_S)
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["ETag"] == first.headers["ETag"]
        changed = session.get(site.url + "/page", headers={"If-None-Match": '"another"'}, timeout=CLIENT_S)
    assert (changed.status_code, changed.content) == (200, first.content)


def connections(site):
    """The database connection of each worker thread."""
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as clients:
        urls = [site.url + "/_connections"] * WORKERS
        return dict(clients.map(lambda url: requests.get(url, timeout=CLIENT_S).json(), urls))


def test_concurrent_requests_keep_the_connections_of_their_threads(site):
    before = connections(site)
    assert sorted(before) == [f"hoopsnake-worker-{number}" for number in range(1, WORKERS + 1)]
    assert len(set(before.values())) == WORKERS

    def client(_):
        """Reads and writes the database: each request changes a session."""
        with requests.Session() as session:
            counts = [session.get(site.url + "/count", timeout=CLIENT_S).json()["count"] for _ in range(8)]
        return counts

    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        assert list(clients.map(client, range(8))) == [list(range(1, 9))] * 8
    assert connections(site) == before


def test_failure_is_djangos_error_page_with_a_traceback_in_the_error_log(site):
    mark = site.error_log.mark()
    response = requests.get(site.url + "/fail", timeout=CLIENT_S)
    assert response.status_code == 500
    assert "Server Error (500)" in response.text
    site.error_log.wait_for("RuntimeError: this view always fails", mark)
    assert "Traceback (most recent call last)" in site.error_log.text(mark)
    site.access_log.wait_for('"GET /fail HTTP/1.1" 500 ')


def test_not_found_and_wrong_method(site):
    assert curl("--output", "/dev/null", "--write-out", "%{http_code}", site.url + "/nowhere") == b"404"
    refused = requests.options(site.url + "/page", timeout=CLIENT_S)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")
