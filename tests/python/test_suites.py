"""The conformance drivers that lie beside the checkout: each must pass whole, on each driver of the reactor.

They are run as they are, as programs of their own, against a server on port 0. $CONFORMANCE_SUITES says where they are
if they aren't in ../shared/suites.
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

import pytest
from serving import ROOT, clean_environment, serving

SUITES = pathlib.Path(os.environ.get("CONFORMANCE_SUITES") or ROOT.parent / "shared" / "suites")
SUITE_S = 240

pytestmark = pytest.mark.skipif(not SUITES.is_dir(), reason=f"the conformance suites aren't in {SUITES}")

# The corpus is pinned: another release has other cases, which the list below would have to be compared with.
CORPUS = "gunicorn==27.0.1"
CORPUS_CASES = 114
# Cases of gunicorn's own limits: run against a server that is given them.
CORPUS_LIMIT_CASES = 6
CORPUS_LIMITS = ("--max-request-line", "4094", "--max-headers", "100", "--max-header-bytes", "8190")
# The cases in which the corpus expects what gunicorn chose and Hoopsnake does otherwise: what it does, and why.
# Exactly these and no others, so that a change of either side is seen.
OTHERWISE = {
    "valid/005": ("400", "RFC 9112 §3.2: a request-target has no fragment, and '#' is no character of it"),
    "valid/025": ("501", "RFC 9112 §6.1: a server answers 501 to a transfer coding it doesn't know (gzip)"),
    "valid/025_line": ("501", "the same, both codings in one line"),
    "valid/029": ("501", "RFC 9112 §7: 'identity' is no transfer coding any more (it was in RFC 2616)"),
    "valid/030": ("501", "the same"),
    "valid/rfc9112_smuggle_gzip_chunked_01": ("501", "RFC 9112 §6.1, as valid/025"),
    "valid/rfc9112_smuggle_te_identity_chunked_01": ("501", "RFC 9112 §7, as valid/029"),
    "valid/rfc9112_target_absolute_userinfo_01": ("400", "RFC 9110 §4.2.4: userinfo in an http URI is an error"),
    "valid/rfc9112_target_authority_connect_01": ("501", "RFC 9110 §9.3.6: an origin server needn't do CONNECT"),
    "valid/rfc9112_target_authority_ipv6_01": ("501", "the same"),
    "invalid/003c": ("200", "RFC 9110 §9.1: '-bl' is a token, so it is a method; the application decides"),
    "invalid/041": ("200", "RFC 9110 §5.3: two Content-Type lines don't touch the framing; the application sees both"),
    "invalid/rfc9110_trailer_forbidden_cl_01": ("200", "RFC 9110 §6.5.1: a trailer field that isn't merged is ignored"),
    "invalid/rfc9110_trailer_forbidden_host_01": ("200", "the same"),
    "invalid/rfc9110_trailer_forbidden_te_01": ("200", "the same"),
}


@pytest.fixture(scope="session")
def corpus():
    """gunicorn's tests/requests, downloaded once into target/."""
    folder = ROOT / "target" / "conformance" / CORPUS.replace("==", "-")
    requests = folder / "requests"
    if not requests.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        download = ["download", "--quiet", "--disable-pip-version-check", "--no-binary", ":all:", "--no-deps"]
        command = [sys.executable, "-m", "pip", *download, "--ignore-requires-python", "--dest", str(folder), CORPUS]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SUITE_S)
        assert done.returncode == 0, f"{CORPUS} can't be downloaded: {done.stderr}"
        unpack(next(folder.glob("*.tar.gz")), "/tests/requests/", folder / "unpacked")
        (folder / "unpacked").rename(requests)
    return requests


def unpack(archive, within, target):
    """The files below `within` of the archive, two levels deep: `kind/name`."""
    with tarfile.open(archive) as source:
        for member in source:
            _, found, name = member.name.partition(within)
            if found and member.isfile() and name.count("/") == 1 and ".." not in name:
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(source.extractfile(member).read())


class Result:
    """What a driver printed."""

    def __init__(self, text, status):
        self.text, self.status = text, status
        found = re.search(r"^(\d+) passed, (\d+) failed$", text, re.MULTILINE)
        assert found, text
        self.passed, self.failed = int(found[1]), int(found[2])

    def check(self, passed):
        failures = "\n".join(re.findall(r"^FAIL .*", self.text, re.MULTILINE))
        assert (self.failed, self.status) == (0, 0), f"{self.failed} failed:\n{failures}"
        assert self.passed == passed, self.text


def run(suite, server, *arguments, environment=()):
    command = [sys.executable, str(SUITES / suite / "run.py"), "--port", str(server.port), *arguments]
    done = subprocess.run(
        command,
        env={**clean_environment(), "PYTHONDONTWRITEBYTECODE": "1", **dict(environment)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SUITE_S,
    )
    return Result(done.stdout + done.stderr, done.returncode)


def hosting(driver, application, folder, *arguments, environment=()):
    environment = {"PYTHONDONTWRITEBYTECODE": "1", **dict(environment)}
    arguments = ("--pythonpath", str(SUITES / folder), "--access-log", "off", *arguments)
    return serving(driver, application, *arguments, cwd=ROOT, environment=environment)


@pytest.fixture(scope="module")
def echo(driver):
    with hosting(driver, "echo_app:app", "lib") as server:
        yield server


@pytest.fixture(scope="module")
def corpus_results(driver, echo, corpus):
    """All three ways to send it, and the cases of limits. They mostly wait, so they run at the same time."""
    ways = ("all", "split", "bytes")
    with (
        hosting(driver, "echo_app:app", "lib", *CORPUS_LIMITS) as limited,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        common = ("--corpus", str(corpus), "-v")
        runs = {way: pool.submit(run, "gunicorn-corpus", echo, *common, "--send", way) for way in ways}
        runs["limits"] = pool.submit(run, "gunicorn-corpus", limited, *common, "--profile", "dlimits")
        return {name: future.result() for name, future in runs.items()}


@pytest.mark.parametrize("way", ["all", "split", "bytes"])
def test_gunicorn_corpus(corpus_results, way):
    result = corpus_results[way]
    result.check(CORPUS_CASES)
    otherwise = re.findall(r"^warn +(\S+) +\w+ \((?:response 1 is )?\[?(\d+)", result.text, re.MULTILINE)
    assert dict(otherwise) == {case: status for case, (status, _) in OTHERWISE.items()}


def test_gunicorn_corpus_at_its_limits(corpus_results):
    corpus_results["limits"].check(CORPUS_LIMIT_CASES)


def test_wsgi_validator(driver, tmp_path):
    environment = {"WSGI_VALIDATOR_LOG": str(tmp_path / "validator.log")}
    with hosting(driver, "app:app", "wsgi-validator", environment=environment) as server:
        run("wsgi-validator", server, environment=environment).check(37)


def test_clients(echo):
    chromium = ["--chromium"] if shutil.which("chromium") else []
    run("clients", echo, *chromium).check(18 + len(chromium))


def test_httplint(echo):
    run("httplint", echo).check(18)
