"""Lock the versions that pyproject.toml allows: ``make lock`` writes three files.

``requirements.txt`` is what a host installs: the package's dependencies and the extra ``train``,
every version pinned, PyTorch's CPU index named. ``requirements.lock`` is the same with the SHA-256
of every file, and below the line ``# dev`` what tests need in addition. ``requirements-tools.lock``
has, with hashes too, what single targets need: the extras ``notebook`` and ``scale``, and
the groups ``tool-…``.

pip checks hashes for all packages of a file or for none, and torch and torchvision cannot have any:
the right file depends on the machine (PyTorch's CPU index on Linux, PyPI elsewhere), and hashes of
both would let the CUDA builds through. So that pair is in requirements.txt only.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from icon_classifier.files import write_file
from scripts.environment import (
    CPU_INDEX,
    DEV_LINE,
    ROOT,
    SINGLE_EXTRAS,
    TORCH_PAIR,
    WHEELS,
    split_blocks,
    tool_requirements,
)
from scripts.tools import tool_folder

# jsonschema's extra "format" requires them, and works without. Importing them builds a grammar:
# 16 MB and most of the start of a server.
SLOW = ("rfc3987-syntax", "lark")

HEADER = "# Written by `make lock`; do not edit.\n"
OPTIONS = f"--extra-index-url {CPU_INDEX}\n{' '.join(WHEELS)}"
SOURCES = {"heat": "--no-binary grad-cam\n"}
"""pip's options for a tool that is published as sources only; setuptools is there to build it."""
# What is true wherever this is installed (tool.uv.environments in pyproject.toml).
_PLATFORMS = "sys_platform == 'darwin' or sys_platform == 'linux' or sys_platform == 'win32'"


def simplify_marker(line: str) -> str:
    """Drop from a requirement's marker what is true wherever this is installed.

    >>> simplify_marker(f"a==1 ; python_full_version < '3.12' and ({_PLATFORMS})")
    "a==1 ; python_full_version < '3.12'"
    """
    requirement, separator, marker = line.partition(" ; ")
    if not separator:
        return line
    tail = " \\" if marker.endswith(" \\") else ""
    marker = marker.removesuffix(" \\")
    if marker == _PLATFORMS:
        return requirement + tail
    marker = marker.replace(f"({_PLATFORMS}) and ", "").replace(f" and ({_PLATFORMS})", "")
    return f"{requirement} ; {marker}{tail}"


def without_hashes(blocks: dict[str, str]) -> str:
    """Return locked requirements with their versions and markers alone."""
    return re.sub(r" \\\n +--hash=\S+", "", "".join(blocks.values()))


def resolve(*arguments: str, present: str, pins: str = "") -> dict[str, str]:
    """Resolve a part of pyproject.toml for every supported Python and platform, with hashes.

    Versions of `present` stay where they can, those of `pins` must.
    """
    uv = tool_folder("lock") / "bin" / "uv"
    with tempfile.TemporaryDirectory() as folder:
        target, constraint = Path(folder) / "locked.txt", Path(folder) / "pins.txt"
        target.write_text(present)
        constraint.write_text(pins)
        command = [str(uv), "pip", "compile", *arguments, "--output-file", str(target), "--quiet"]
        command += ["--universal", "--python-version", "3.11", "--generate-hashes"]
        command += ["--no-annotate", "--no-header", "--no-emit-index-url"]
        command += ["--constraint", str(constraint)]
        # A wheel found on this machine only must not decide what others install.
        environment = {k: v for k, v in os.environ.items() if k != "UV_FIND_LINKS"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        lines = target.read_text().splitlines()
    return split_blocks("\n".join(simplify_marker(line) for line in lines))


def main() -> int:
    """Write the locked files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions allowed")
    requirements, lock = ROOT / "requirements.txt", ROOT / "requirements.lock"
    present = ""
    upgrade = parser.parse_args().upgrade
    if not upgrade:
        present = without_hashes(
            split_blocks(lock.read_text()) | split_blocks(requirements.read_text())
        )
    sources = ("pyproject.toml", "--extra", "train")
    serving = resolve(*sources, present=present)
    pins = without_hashes(serving)
    bare = resolve("--group", "no-deps", "--no-deps", present=present, pins=pins)
    hashed = serving | bare
    all_extras = (*sources, "--extra", "api", "--group", "dev")
    dev = {
        name: block
        for name, block in resolve(*all_extras, present=present, pins=pins).items()
        if name not in hashed
    }
    for name in (*TORCH_PAIR, *SLOW):
        del hashed[name]
    requirements.write_text(f"{HEADER}{OPTIONS}\n{pins}")
    hashes = "".join(hashed[name] for name in sorted(hashed))
    lock.write_text(f"{HEADER}{hashes}{DEV_LINE}\n{''.join(dev.values())}")
    print(f"{len(serving)} packages on hosts, {len(hashed)} with hashes, {len(dev)} for tests")
    lock_tools(serving | bare | dev, upgrade=upgrade)
    return 0


def lock_tools(installed: dict[str, str], *, upgrade: bool) -> None:
    """Write requirements-tools.lock; `installed` is what the extras find there."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    text = HEADER
    for name in (*SINGLE_EXTRAS, *(group[5:] for group in groups if group.startswith("tool-"))):
        present = "" if upgrade else without_hashes(split_blocks(tool_requirements(name)))
        if name in SINGLE_EXTRAS:
            pins = without_hashes(installed)
            extra = ("pyproject.toml", "--extra", name)
            blocks = resolve(*extra, present=present, pins=pins)
            # What is installed for some Pythons only is needed here for the others.
            blocks = {key: block for key, block in blocks.items() if installed.get(key) != block}
        else:
            # What the two need else, torch above all, is there already.
            options = ["--no-deps"] if name in ("fuzz", "heat") else []
            blocks = resolve("--group", f"tool-{name}", *options, present=present)
        text += f"# {name}\n{SOURCES.get(name, '')}{''.join(blocks.values())}"
    write_file(ROOT / "requirements-tools.lock", text)


if __name__ == "__main__":
    sys.exit(main())
