"""How the application is found: `hoopsnake._application`, without the extension and without a server."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "python" / "hoopsnake"


def _module(name):
    """A file of the package by itself, so that these tests run where nothing is built or installed."""
    spec = importlib.util.spec_from_file_location(f"application_under_test_{name}", PACKAGE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


application = _module("_application")

SITE = {
    "site_plain.py": """
        def application(environ, start_response):
            return [b"plain"]

        class Holder:
            inner = application

        holder = Holder
        text = "not callable"
        with_default = lambda environ, start_response=None: []
        _hidden = application
    """,
    "site_app.py": """
        from functools import partial
        import json

        class Site:
            def __call__(self, environ, start_response):
                return []

        app = Site()

        def create(*arguments, **keywords):
            def made(environ, start_response):
                return []
            made.arguments = arguments
            made.keywords = keywords
            return made

        def breaks():
            raise RuntimeError("no database.\\nsecond line")

        def gives_none():
            return None

        def exits():
            raise SystemExit(3)

        def three(scope, receive, send):
            return None

        async def asgi(scope, receive):
            return None

        class Asynchronous:
            async def __call__(self, scope, receive, send):
                return None

        asynchronous = Asynchronous()

        class Raising:
            @property
            def application(self):
                raise AttributeError("inside the property")

        raising = Raising()
    """,
    "site_empty.py": "import json\n",
    "site_broken.py": "def f():\n    return 1 / 0\n\nf()\n",
    "site_syntax.py": "def f(:\n    pass\n",
    "site_exits.py": "import sys\nsys.exit(4)\n",
    "site_needs.py": "import a_module_that_is_not_there\n",
    "site_package/__init__.py": "",
    "site_package/wsgi.py": "def application(environ, start_response):\n    return []\n",
    "site_selfish/__init__.py": "import site_selfish.absent\n",
}


@pytest.fixture(autouse=True)
def site(tmp_path, monkeypatch):
    """The files above in a folder that is the working directory and the first of sys.path; nothing stays imported."""
    for name, text in SITE.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("site_"):
            del sys.modules[name]


@pytest.mark.parametrize(
    "spec",
    [
        "site_plain",
        "site_plain:application",
        " site_plain : application ",
        "site_plain:holder.inner",
        "site_plain:with_default",
        "site_app:app",
        "site_package.wsgi",
    ],
)
def test_found(spec):
    assert callable(application.load(spec))


@pytest.mark.parametrize(
    ("spec", "arguments", "keywords"),
    [
        ("site_app:create()", (), {}),
        ('site_app:create("a:b", debug=True)', ("a:b",), {"debug": True}),
        ("site_app:create(-1, [1, {'k': None}], n=(2,))", (-1, [1, {"k": None}]), {"n": (2,)}),
    ],
)
def test_factory_gets_its_literal_arguments(spec, arguments, keywords):
    made = application.load(spec)
    assert (made.arguments, made.keywords) == (arguments, keywords)


# Each: what was asked, what the sentence must say.
REFUSED = [
    ("", "names no module"),
    (":application", "names no module"),
    ("site_plain:", "names no callable after the colon. Write site_plain:application"),
    (".site_plain", "isn't a module's full name"),
    ("site_package/wsgi.py", "is a path; name the module as an import statement would: hoopsnake site_package.wsgi"),
    ("./site_plain.py:application", "hoopsnake site_plain:application"),
    ("/srv/www/site.py:app", "hoopsnake --chdir /srv/www site:app"),
    ("site_plian", "there is no module 'site_plian'. Did you mean 'site_plain'?"),
    ("zzzzqqqq", "--chdir or --pythonpath says where it is"),
    ("zzzzqqqq.wsgi", "there is no module 'zzzzqqqq'"),
    ("site_package.wsgy", "Did you mean 'site_package.wsgi'?"),
    ("site_package.zzzz", "there is no module 'site_package.zzzz' in the package"),
    ("site_plain.wsgi", "'site_plain' is a module, not a package. Did you mean site_plain:wsgi?"),
    ("site_app", "'site_app' has no 'application'. Its own callables are Site, app, create, breaks, gives_none, …"),
    ("site_plain:aplication", "'site_plain' has no 'aplication'. Did you mean site_plain:application?"),
    ("site_app:json.lods", "'site_app:json' has no 'lods'. Did you mean site_app:json.loads?"),
    ("site_empty", "nor any other callable of its own"),
    ("site_package:wsgi", "there is a module of that name. Did you mean site_package.wsgi?"),
    ("site_plain:text.missing", "'site_plain:text' has no 'missing': it is a str"),
    ("site_plain:text", "'site_plain:text' is a str, which isn't callable"),
    ("site_plain:text()", "'site_plain:text' can't be called: it is a str"),
    ("site_app:json", "is the module json, which isn't callable. Did you mean json:application?"),
    ("site_app:gives_none()", "returned None, which isn't callable. A factory must return the application."),
    ("site_app:breaks", "If it makes the application, call it: site_app:breaks()"),
    ("site_app:three", "its parameters are (scope, receive, send)"),
    ("site_app:asgi", "is asynchronous (ASGI)"),
    ("site_app:asynchronous", "is asynchronous (ASGI)"),
    ("site_app:create(open)", "neither a name"),
    ("site_app:create(*[1])", "neither a name"),
    ("site_app:create(**{'a': 1})", "neither a name"),
    ("site_app:create(__import__('os').getpid())", "neither a name"),
    ("site_app:create().made", "neither a name"),
    ("site_app:[create][0]", "neither a name"),
    ("site_app:lambda e, s: []", "neither a name"),
    ("site_app:create(", "neither a name"),
    ("site_app:" + "(" * 5000, "neither a name"),
]


@pytest.mark.parametrize(("spec", "says"), REFUSED)
def test_operators_mistake_is_one_sentence_without_a_traceback(spec, says):
    with pytest.raises(application.ApplicationError) as caught:
        application.load(spec)
    assert says in caught.value.sentence
    assert caught.value.traceback == ""
    assert "\n" not in caught.value.sentence


# Each: what was asked, what the sentence must say, the last line of the application's own traceback.
FAILING = [
    ("site_broken", "'site_broken' can't be imported: ZeroDivisionError", "ZeroDivisionError: division by zero"),
    ("site_syntax", "'site_syntax' can't be imported: SyntaxError", "SyntaxError: invalid syntax"),
    ("site_exits", "ended the program while it was imported (exit status 4)", "SystemExit: 4"),
    (
        "site_needs",
        "it needs 'a_module_that_is_not_there'",
        "ModuleNotFoundError: No module named 'a_module_that_is_not_there'",
    ),
    (
        "site_selfish.absent",
        "it needs 'site_selfish.absent'",
        "ModuleNotFoundError: No module named 'site_selfish.absent'",
    ),
    ("site_app:breaks()", "'site_app:breaks()' failed: RuntimeError: no database. ", "second line"),
    ("site_app:exits()", "'site_app:exits()' failed: SystemExit: 3", "SystemExit: 3"),
    ("site_app:raising.application", "'application' of 'site_app:raising' can't be read", "inside the property"),
]


@pytest.mark.parametrize(("spec", "says", "last_line"), FAILING)
def test_applications_mistake_carries_its_traceback(spec, says, last_line):
    with pytest.raises(application.ApplicationError) as caught:
        application.load(spec)
    assert says in caught.value.sentence
    assert "\n" not in caught.value.sentence
    assert last_line in caught.value.traceback.rstrip().splitlines()[-1]
    # The application's frames only: neither the import system's nor the loader's.
    assert "importlib" not in caught.value.traceback
    assert "_application.py" not in caught.value.traceback


def test_interrupt_at_import_is_not_swallowed(site):
    (site / "site_interrupt.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        application.load("site_interrupt")


def test_another_active_virtual_environment_is_named(monkeypatch):
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere/else")
    with pytest.raises(application.ApplicationError, match="The active virtual environment is /somewhere/else"):
        application.load("zzzzqqqq")


def test_path_is_pythonpath_then_working_directory_then_the_rest(site, monkeypatch):
    for name in ("one", "two", "work"):
        (site / name).mkdir()
    monkeypatch.setattr(sys, "path", ["", "/rest", str(site / "two")])
    # Relative entries count from the folder that --chdir names.
    application.prepare_path(str(site / "work"), [str(site / "two"), "../one"])
    assert sys.path == [str(site / "two"), str(site / "one"), str(site / "work"), "/rest"]
    assert os.getcwd() == str(site / "work")


def test_path_without_flags_starts_with_the_working_directory(site, monkeypatch):
    monkeypatch.setattr(sys, "path", ["/rest", str(site)])
    application.prepare_path(None, [])
    assert sys.path == [str(site), "/rest"]


@pytest.mark.parametrize(
    ("chdir", "pythonpath", "says"),
    [
        ("/nonexistent/folder", [], "--chdir /nonexistent/folder: No such file or directory"),
        (None, ["absent"], "--pythonpath absent: "),
    ],
)
def test_missing_folders_are_refused(chdir, pythonpath, says):
    before = list(sys.path)
    with pytest.raises(application.ApplicationError) as caught:
        application.prepare_path(chdir, pythonpath)
    assert caught.value.sentence.startswith(says)
    assert sys.path == before


def test_python_is_described(monkeypatch):
    monkeypatch.setattr(sys, "prefix", "/srv/site/.venv")
    described = application.describe_python()
    assert described.startswith(f"CPython {sys.version_info.major}.{sys.version_info.minor}.")
    assert described.endswith(", venv /srv/site/.venv")
    monkeypatch.setattr(sys, "base_prefix", "/srv/site/.venv")
    assert application.describe_python().endswith(", no venv (/srv/site/.venv)")


@pytest.mark.parametrize(
    ("built", "says"),
    [
        (None, "the extension hoopsnake._core is missing from"),
        ("_core.cpython-27-x86_64-linux-gnu.so", "it is installed for another Python (_core.cpython-27-x86_64-linux"),
        ("_core.so", "the extension _core.so can't be loaded by"),
    ],
)
def test_command_without_a_usable_extension_says_why(tmp_path, built, says):
    copy = tmp_path / "copy" / "hoopsnake"
    copy.mkdir(parents=True)
    for source in PACKAGE.glob("*.py"):
        (copy / source.name).write_text(source.read_text())
    if built:
        (copy / built).write_bytes(b"no shared object")
    # -S: no site-packages, where an installed Hoopsnake would be found instead.
    command = [sys.executable, "-S", "-m", "hoopsnake", "site_plain"]
    done = subprocess.run(command, cwd=copy.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"hoopsnake: {says}")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_command_hands_the_arguments_on_and_the_application_sees_none(monkeypatch):
    seen = []

    class Core:
        @staticmethod
        def main(argv):
            seen.append((argv, list(sys.argv)))
            return 7

    package = type(sys)("hoopsnake")
    package._core = Core
    monkeypatch.setitem(sys.modules, "hoopsnake", package)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/hoopsnake", "--workers", "2", "site_plain"])
    command = _module("__main__")
    assert command.main() == 7
    assert command.main(["--version"]) == 7
    assert seen == [
        (["--workers", "2", "site_plain"], ["/usr/bin/hoopsnake"]),
        (["--version"], ["/usr/bin/hoopsnake"]),
    ]
