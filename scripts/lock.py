"""Lock the versions that pyproject.toml allows: ``make lock`` writes two files.

``requirements.txt`` is what a host installs: the package's dependencies and the extra ``train``,
every version pinned, PyTorch's CPU index named. ``requirements.lock`` is the same with the SHA-256
of every file, and below the line ``# dev`` what tests need in addition.

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
import venv
from pathlib import Path

from scripts.environment import CPU_INDEX, DEV_LINE, ROOT, TORCH_PAIR, split_blocks

# jsonschema's extra "format" requires them, and works without. Importing them builds a grammar:
# 16 MB and most of the start of a server.
SLOW = ("rfc3987-syntax", "lark")

HEADER = "# Written by `make lock`; do not edit.\n"
# What is true wherever this is installed (tool.uv.environments in pyproject.toml).
_PYTHON = "python_full_version < '3.12'"
_PLATFORMS = "(sys_platform == 'darwin' or sys_platform == 'linux' or sys_platform == 'win32')"


def simplify_marker(line: str) -> str:
    """Drop from a requirement's marker what is true wherever this is installed.

    >>> simplify_marker("numpy==2.4.6 ; python_full_version < '3.12'")
    'numpy==2.4.6'
    """
    requirement, separator, marker = line.partition(" ; ")
    if not separator:
        return line
    tail = " \\" if marker.endswith(" \\") else ""
    marker = marker.removesuffix(" \\")
    for always in (_PYTHON, _PLATFORMS):
        marker = marker.replace(f"{always} and ", "").replace(f" and {always}", "")
    if marker in (_PYTHON, _PLATFORMS):
        return requirement + tail
    return f"{requirement} ; {marker}{tail}"


def without_hashes(blocks: dict[str, str]) -> str:
    """Return locked requirements with their versions and markers alone."""
    return re.sub(r" \\\n +--hash=\S+", "", "".join(blocks.values()))


def resolve(*arguments: str, present: str, pins: str = "") -> dict[str, str]:
    """Resolve a part of pyproject.toml for Python 3.11 on every platform, with hashes.

    Versions of `present` stay where they can, those of `pins` must.
    """
    uv = ROOT / "build" / "lock" / "bin" / "uv"
    if not uv.exists():  # in an environment of its own, independent of what is being locked
        venv.create(uv.parents[1], with_pip=True, clear=True)
        subprocess.run([uv.with_name("python"), "-m", "pip", "install", "uv"], check=True)
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
    """Write the two locked files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions allowed")
    requirements, lock = ROOT / "requirements.txt", ROOT / "requirements.lock"
    present = ""
    if not parser.parse_args().upgrade:
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
    requirements.write_text(f"{HEADER}--extra-index-url {CPU_INDEX}\n{pins}")
    hashes = "".join(hashed[name] for name in sorted(hashed))
    lock.write_text(f"{HEADER}{hashes}{DEV_LINE}\n{''.join(dev.values())}")
    print(f"{len(serving)} packages on hosts, {len(hashed)} with hashes, {len(dev)} for tests")
    return 0


if __name__ == "__main__":
    sys.exit(main())
