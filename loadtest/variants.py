"""Builds of hoopsnake with other bounds in src/limits.rs, to see what each way of sending a file costs.

The product has no switch for them: each variant is a copy of the sources with other constants, built beside the
checkout's own.
"""

import os
import re
import shutil
import subprocess
import sys

from options import HERE, ROOT

FOLDER = HERE / "build" / "variants"
EVERY_FILE = 128 * 1024 * 1024
SOURCES = ("Cargo.toml", "Cargo.lock", "build.rs", "README.md", "src", "benches")

# What a file of any size is: copied behind its head, sent from where it lies in memory, or sent with sendfile(2).
VARIANTS = {
    "copied": {
        "STATIC_COPY_BYTES_MAX": EVERY_FILE,
        "STATIC_MEMORY_FILE_BYTES_MAX": EVERY_FILE,
        "STATIC_MEMORY_BYTES_MAX": 8 * EVERY_FILE,
        # Its buffers are kept as those of small answers are, so that only the copying is compared.
        "BUFFER_KEPT_BYTES_MAX": 2 * EVERY_FILE,
    },
    "in-place": {
        "STATIC_COPY_BYTES_MAX": 0,
        "STATIC_MEMORY_FILE_BYTES_MAX": EVERY_FILE,
        "STATIC_MEMORY_BYTES_MAX": 8 * EVERY_FILE,
    },
    "sendfile": {"STATIC_MEMORY_FILE_BYTES_MAX": 0},
    # Smaller steps of a large file.
    "step-512k": {"SENDFILE_STEP_BYTES": 512 * 1024},
}

LAUNCHER = """#!{python}
import sys
sys.path.insert(0, {folder!r})
from hoopsnake.__main__ import main
sys.exit(main())
"""


def with_limits(text, limits):
    """src/limits.rs with other values; raises KeyError for a bound that isn't there."""
    for name, value in limits.items():
        text, found = re.subn(rf"(pub const {name}: \w+ = )[^;]+;", rf"\g<1>{value};", text)
        if not found:
            raise KeyError(name)
    return text


def path_of(name):
    """The variant's command, there or not."""
    return FOLDER / name / "hoopsnake-command"


def build(name, say):
    """Make a variant from the checkout as it stands now."""
    sources, made = FOLDER / "sources", FOLDER / name
    say(f"building the variant {name}")
    for source in SOURCES:
        wanted = sources / source
        if wanted.is_dir():
            shutil.rmtree(wanted)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, wanted)
        else:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, wanted)
    limits = sources / "src" / "limits.rs"
    limits.write_text(with_limits(limits.read_text(), VARIANTS[name]))
    manifest = sources / "Cargo.toml"
    # The tests stay behind.
    manifest.write_text(re.sub(r"\[\[test\]\]\n(?:\w+ = .*\n)+", "", manifest.read_text()))
    python = ROOT / ".venv" / "bin" / "python"
    environment = {**os.environ, "CARGO_TARGET_DIR": str(FOLDER / "target"), "PYO3_PYTHON": str(python)}
    environment["PYO3_BUILD_EXTENSION_MODULE"] = "1"
    subprocess.run(["cargo", "build", "--release", "--lib", "--quiet"], cwd=sources, env=environment, check=True)
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(
        ROOT / "python" / "hoopsnake", made / "hoopsnake", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    shutil.copy(FOLDER / "target" / "release" / "libhoopsnake.so", made / "hoopsnake" / "_core.so")
    command = path_of(name)
    command.write_text(LAUNCHER.format(python=python, folder=str(made)))
    command.chmod(0o755)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or VARIANTS:
        build(wanted, print)
