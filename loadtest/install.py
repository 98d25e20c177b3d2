"""What has to be on the machine: wrk, oha, and the peers in a venv of their own.

Installs what is missing, says what it can't install.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import servers

INSTALL_SECONDS = 1200


def run(command, say):
    """Run an installer; True when it succeeded, else its last lines are shown."""
    say("  $ " + servers.shown(command))
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"    {error}")
        return False
    if done.returncode:
        for line in (done.stdout + done.stderr).strip().splitlines()[-8:]:
            say("    " + line)
    return done.returncode == 0


def find_tool(name):
    """A tool's path, cargo's folder included; None where there is none."""
    cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "bin" / name
    return shutil.which(name) or (str(cargo) if cargo.exists() else None)


def ensure_tools(say, install):
    """Paths of wrk, oha and taskset. A sentence and the end when wrk or taskset is missing; oha may be None."""
    if install and not find_tool("wrk") and os.geteuid() == 0 and shutil.which("apt-get"):
        run(["apt-get", "install", "-y", "--no-install-recommends", "wrk"], say)
    if not find_tool("wrk"):
        raise SystemExit(
            "loadtest: wrk is missing and can't be installed without root; install it: `sudo apt-get install wrk`."
        )
    if not find_tool("taskset"):
        raise SystemExit("loadtest: taskset is missing; it is in the package util-linux.")
    if install and not find_tool("oha"):
        if shutil.which("cargo"):
            run(["cargo", "install", "oha", "--locked"], say)
        else:
            say("oha is missing and so is cargo; the scenarios that use it are left out.")
    return {"wrk": find_tool("wrk"), "oha": find_tool("oha"), "taskset": find_tool("taskset")}


def installed(venv):
    """Names (lower case) and versions of the packages in a venv, read from its metadata."""
    found = {}
    for folder in servers.site_packages(venv).glob("*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
        found[name.lower().replace("_", "-")] = version
    return found


def ensure_peers(venv, python, say, install):
    """The peers that are there at the end, with their versions; those that can't be built are said and left out."""
    if not (venv / "bin/python").exists():
        if not install:
            raise SystemExit(f"loadtest: {venv} isn't there; run without --no-install once.")
        say(f"making {venv}")
        if not run([str(python), "-m", "venv", str(venv)], say):
            raise SystemExit(
                "loadtest: the venv for the peers can't be made; on Debian it takes the package python3-venv."
            )
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    missing = [package for package in servers.PACKAGES if package not in installed(venv)]
    if missing and install:
        say("installing " + ", ".join(missing))
        # fastwsgi's build imports pkg_resources, which later setuptools have no more.
        run([*pip, "setuptools<80", "wheel"], say)
        header = any(
            Path(folder, "ev.h").exists() for folder in ("/usr/include", "/usr/local/include", "/usr/include/libev")
        )
        if "bjoern" in missing and not header:
            if os.geteuid() == 0 and shutil.which("apt-get"):
                run(["apt-get", "install", "-y", "--no-install-recommends", "libev-dev"], say)
            else:
                say("  bjoern needs libev's headers: `sudo apt-get install libev-dev`.")
        for package in missing:
            isolation = ["--no-build-isolation"] if package in ("fastwsgi", "bjoern") else []
            if not run([*pip, *isolation, package], say):
                say(f"  {package} can't be installed; it is left out.")
    there = installed(venv)
    return {package: there[package] for package in servers.PACKAGES if package in there}


def default_python(hoopsnake):
    """The Python beside hoopsnake, so that both see the same packages; else the one that runs this."""
    beside = hoopsnake.parent / "python" if hoopsnake else None
    return beside if beside and beside.exists() else Path(sys.executable)


def output_of(command):
    """First line that a command prints, or an empty text."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else ""
