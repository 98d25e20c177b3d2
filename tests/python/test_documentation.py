"""What the documents show can be typed: their commands are understood, their files too, and their flags exist."""

import concurrent.futures
import functools
import getpass
import os
import pathlib
import re
import shlex
import subprocess

import pytest
from serving import CLIENT_S, HOOPSNAKE, ROOT, clean_environment

PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"])
# Flags that the text names and that are other programs'.
FOREIGN = {"--security-opt", "--pid"}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# The path of a folder or file, not the tail of a network (10.0.0.0/8).
PATH = re.compile(r"(?<![\w./])/[\w.-]+(?:/[\w.-]+)*")


def names(pages):
    return [page.name for page in pages]


@functools.lru_cache(maxsize=1)
def flags():
    done = subprocess.run([HOOPSNAKE, "--help"], capture_output=True, text=True, timeout=CLIENT_S)
    assert done.returncode == 0
    return set(re.findall(r"^ +(?:-\w, )?(--[a-z][a-z-]+)", done.stdout, re.MULTILINE))


def commands(page):
    """The command lines with hoopsnake in the page's blocks, from the word `hoopsnake` on."""
    for language, block in BLOCK.findall(page.read_text()):
        if language in ("sh", "ini", ""):
            for line in block.replace("\\\n", " ").splitlines():
                match = re.match(r"(?:\$ |ExecStart=)?(?:\S*/)?(hoopsnake(?: .*)?)$", line.strip())
                if match and "[FLAGS]" not in line:
                    yield match[1]


def settings(page):
    """The configuration files in the page."""
    return [block for language, block in BLOCK.findall(page.read_text()) if language == "toml"]


def stand_ins(text, folder):
    """`text` with its paths moved into `folder`, where they exist."""

    def moved(match):
        path = folder / match[0].lstrip("/")
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True, exist_ok=True)
        return str(path)

    return PATH.sub(moved, text)


def application(specification, folder):
    """Makes a module with the callable that is named."""
    module, _, name = specification.partition(":")
    path = folder.joinpath(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    name = name or "application"
    called = re.fullmatch(r"(\w+)\(.*\)", name)
    if called:
        path.write_text(f"def {called[1]}(*a, **k):\n    return lambda environ, start_response: []\n")
    else:
        path.write_text(f"def {name}(environ, start_response):\n    return []\n")


def understood(arguments, folder):
    """Runs `hoopsnake --check` there."""
    command = [HOOPSNAKE, "--check", "--pythonpath", str(folder), *arguments]
    environment = {**clean_environment(), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=CLIENT_S)


def check_command(command, folder):
    """Why the command isn't understood; None if it is."""
    folder.mkdir()
    arguments = shlex.split(stand_ins(command, folder), comments=True)[1:]
    for flag, name in (("--user", getpass.getuser()), ("--group", str(os.getgid()))):
        # Only root can become somebody else, and that user might not be there, or not be allowed to run this Python.
        arguments = [name if before == flag else word for before, word in zip(["", *arguments], arguments)]
    if arguments == ["--help"] or arguments == ["--version"]:
        return None
    for word in [*arguments, "wsgi_app"]:
        if re.fullmatch(r"[a-zA-Z_][\w.]*(:\w+(\(.*\))?)?", word) and not re.match(r"unix:|fd:", word):
            application(word, folder)
    done = understood(arguments, folder)
    return None if done.returncode == 0 else f"{command}: {done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_commands_are_understood(page, tmp_path):
    found = list(commands(page))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        folders = (tmp_path / str(number) for number in range(len(found)))
        assert [wrong for wrong in pool.map(check_command, found, folders) if wrong] == []


def test_commands_are_found():
    """The tests above aren't empty."""
    counts = {page.name: len(list(commands(page))) for page in PAGES}
    assert counts["flags.md"] > 20
    assert all(counts[name] for name in ("README.md", "deployment.md", "index.md", "from-gunicorn.md", "from-wsgo.md"))


def test_configuration_files_are_understood(tmp_path):
    found = [block for page in PAGES for block in settings(page)]
    assert len(found) > 20

    def check(number):
        folder = tmp_path / str(number)
        folder.mkdir()
        text = stand_ins(found[number], folder)
        text = re.sub(r'^user = ".*"$', f'user = "{getpass.getuser()}"', text, flags=re.MULTILINE)
        text = re.sub(r'^group = ".*"$', f'group = "{os.getgid()}"', text, flags=re.MULTILINE)
        application("mysite.wsgi:application", folder)
        application("wsgi_app", folder)
        (folder / "hoopsnake.toml").write_text(text)
        done = understood(["--config", "hoopsnake.toml"], folder)
        return None if done.returncode == 0 else f"{text}: {done.stderr}"

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert [wrong for wrong in pool.map(check, range(len(found))) if wrong] == []


def programs(page):
    """The Python in the page that stands by itself."""
    return [block for language, block in BLOCK.findall(page.read_text()) if language == "python" and "import " in block]


def test_programs_run():
    """Outside the server: decorators check their arguments."""
    found = [(page.name, block) for page in PAGES for block in programs(page)]
    assert {"cron.md", "from-wsgo.md", "from-uwsgi.md"} <= {name for name, _ in found}
    for name, block in found:
        exec(compile(block, name, "exec"), {"__name__": name})


def named(page):
    """The flags that the page says are Hoopsnake's: in its commands, and in code within the text."""
    text = re.sub(r"<!--.*?-->", "", page.read_text(), flags=re.DOTALL)
    if page.name.startswith("from-"):
        # Their tables have the other server's flags on the left, and the last sentences list what isn't there yet.
        text = "\n".join(re.findall(r"^\|.*?\|(.*)\|$", text, re.MULTILINE))
    text = "\n".join([*re.findall(r"`[^`\n]+`", BLOCK.sub("", text)), *commands(page)])
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_flags_exist(page):
    assert named(page) - flags() - FOREIGN == set()


def test_every_flag_is_in_the_manual():
    manual = pathlib.Path(ROOT / "docs" / "flags.md").read_text()
    assert {flag for flag in flags() if f"### `{flag}" not in manual} == set()


def room_texts():
    """The server's source without its unit tests, strings that go over several lines joined."""
    for path in sorted(ROOT.glob("src/**/*.rs")):
        if path.name != "tests.rs" and "tests" not in path.parts:
            yield re.sub(r"\\\n\s*", "", re.split(r"#\[cfg\(test\)\]\n(?:pub\S* )?mod ", path.read_text())[0])


def pieces(message):
    """A message without the places where something is put in."""
    found = re.split(r"'?(?:\{[^{}]*\}|…)'?|\\n", message)
    return [piece for piece in (piece.strip(" ,;:()") for piece in found) if piece]


def explained():
    """The messages in the first columns of troubleshooting.md's tables of sentences."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    tables = text[: text.index("## It answers with an error")]
    cells = re.findall(r"^\| ([^|]*`[^|]*) \|", tables, re.MULTILINE)
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]


# What the system says is put in by it.
SYSTEM = "No such file or directory"


def test_messages_that_are_explained_are_the_servers():
    """Or what the tests of the server expect it to put together."""
    paths = [*ROOT.glob("src/**/*.rs"), *ROOT.glob("python/hoopsnake/*.py")]
    source = "\n".join([SYSTEM, *room_texts(), *(path.read_text() for path in paths)])
    # Strings of Python that go over several lines.
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    assert len(explained()) > 90
    assert [message for message in explained() if not all(piece in source for piece in pieces(message))] == []


# The words that follow say all.
SELF_EXPLANATORY = {"while leaving: {error}"}
LOGGED = re.compile(r"(?:\b(?:error|warn)!\(|Level::(?:Error|Warning),)\s*(?:format!\(\s*)?\"((?:[^\"\\]|\\.)*)\"")


def test_messages_of_the_error_log_are_explained():
    logged = [message for text in room_texts() for message in LOGGED.findall(text)]
    # Those that are only a place for a sentence made elsewhere go.
    logged = [message for message in logged if pieces(message)]
    assert len(logged) > 40
    told = [pieces(message) for message in explained()]

    def is_told(message):
        return message in SELF_EXPLANATORY or any(all(piece in message for piece in parts) for parts in told)

    assert [message for message in logged if not is_told(message)] == []


def test_pages_link_to_what_is_there():
    """Every page is linked by the first one, and every link ends at a page, and at a heading of it."""

    def anchors(page):
        headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    broken = []
    for page in [*PAGES, ROOT / "CHANGELOG.md", ROOT / "PERF.md"]:
        for link in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text())):
            if re.match(r"https?://", link):
                continue
            path, _, anchor = link.partition("#")
            target = page if not path else (page.parent / path).resolve()
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.name}: {link}")
    assert broken == []
    index = (ROOT / "docs" / "index.md").read_text()
    assert [
        page.name for page in ROOT.glob("docs/*.md") if page.name != "index.md" and f"({page.name})" not in index
    ] == []
