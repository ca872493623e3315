"""Renew the locked versions: ``make lock``.

========================  =======================================================================
written                   holds
========================  =======================================================================
``requirements.txt``      what a host installs: every package pinned, PyTorch's CPU index named
``requirements.lock``     the same with the SHA-256 of every file, torch, torchvision and what only
                          slows Jupyter down left out
``requirements-dev.txt``  what tests need besides, with the SHA-256 of every file
========================  =======================================================================

pip checks hashes for all packages of a file or for none. torch and torchvision cannot take part:
which file is right depends on the machine (PyTorch's CPU index on Linux, PyPI elsewhere), and one
list of hashes for both would let the CUDA builds through. So `requirements.txt`, which hosts read
by themselves, has versions only, and set-up installs `requirements.lock` with ``--require-hashes``
and then the pair by version.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from scripts.environment import CPU_INDEX, ROOT, TORCH_PAIR

# jsonschema asks for them to check addresses, and does without: importing them builds a grammar,
# 16 MB and most of the start of a server.
SLOW = ("rfc3987-syntax", "lark")

HEADER = "# Written by `make lock`; do not edit.\n"
# What holds wherever this is installed (pyproject.toml, tool.uv.environments) says nothing.
_PYTHON = "python_full_version < '3.12'"
_PLATFORMS = "sys_platform == 'darwin' or sys_platform == 'linux' or sys_platform == 'win32'"


def simplify_marker(line: str) -> str:
    """Drop from a requirement's marker what is true on every Python 3.11.

    >>> simplify_marker("numpy==2.4.6 ; python_full_version < '3.12'")
    'numpy==2.4.6'
    """
    requirement, separator, marker = line.partition(" ; ")
    if not separator:
        return line
    tail = " \\" if marker.endswith(" \\") else ""
    marker = marker.removesuffix(" \\")
    marker = marker.replace(f"{_PYTHON} and ", "").replace(f" and {_PYTHON}", "")
    marker = re.sub(r"\(([^()]+ [=!]= '[^']*')\)", _drop_needless_parentheses, marker)
    if marker in (_PYTHON, _PLATFORMS):
        return requirement + tail
    return f"{requirement} ; {marker}{tail}"


def _drop_needless_parentheses(match: re.Match[str]) -> str:
    return match[0] if " and " in match[1] else match[1]


def split_blocks(text: str) -> dict[str, str]:
    """Map each package of a locked file to its requirement, with markers and hashes.

    A package has two requirements where its version depends on the Python release.
    """
    blocks: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", text.strip()):
        if block and not block.startswith(("#", "-")):
            name = re.split(r"[=\[ ;]", block, maxsplit=1)[0]
            blocks[name] = blocks.get(name, "") + block + "\n"
    return blocks


def without_hashes(block: str) -> str:
    """Keep of a locked requirement its versions and markers alone."""
    return re.sub(r" \\\n +--hash=\S+", "", block)


def compile_(uv: Path, *sources: str, pins: str = "", deps: bool = True) -> dict[str, str]:
    """Resolve `sources` for Python 3.11 on every platform, as :func:`split_blocks` gives it."""
    with tempfile.TemporaryDirectory() as folder:
        target, constraint = Path(folder) / "locked.txt", Path(folder) / "pins.txt"
        constraint.write_text(pins)
        command = [str(uv), "pip", "compile", *sources, "--output-file", str(target), "--quiet"]
        command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--upgrade"]
        command += ["--no-annotate", "--no-header", "--no-emit-index-url"]
        command += ["--constraint", str(constraint)]
        command += [] if deps else ["--no-deps"]
        # A wheel found on this machine only must not decide what others install.
        environment = {k: v for k, v in os.environ.items() if k != "UV_FIND_LINKS"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        lines = target.read_text().splitlines()
    return split_blocks("\n".join(simplify_marker(line) for line in lines))


def write(name: str, text: str) -> None:
    """Write one locked file, whole or not at all."""
    target = ROOT / name
    temporary = target.with_name(f"{name}.tmp")
    temporary.write_text(HEADER + text)
    temporary.replace(target)
    print(f"{name}: {len(split_blocks(text))} packages")


def find_uv() -> Path:
    """Install uv in an environment of its own: the lock must not depend on what is being locked."""
    folder = ROOT / "build" / "lock"
    uv = folder / "bin" / "uv"
    if not uv.exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "uv"], check=True)
    return uv


def without_versions(requirements: str) -> str:
    """Take the wanted versions out of a requirements file.

    >>> without_versions("torch==2.13.0")
    'torch'
    """
    return re.sub(r"^([\w-]+)[=<>!~][^;\n]*", r"\1", requirements, flags=re.MULTILINE)


def main(argv: list[str] | None = None) -> int:
    """Write the three locked files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--newest", action="store_true", help="take the versions out of requirements.in, too"
    )
    wanted = ROOT / "requirements.in"
    if parser.parse_args(argv).newest:
        wanted.write_text(without_versions(wanted.read_text()))
    uv = find_uv()
    serving = compile_(uv, "pyproject.toml", "requirements.in")
    pins = "".join(without_hashes(block) for block in serving.values())
    bare = compile_(uv, "requirements-no-deps.in", deps=False)
    apart = (*TORCH_PAIR, *SLOW)
    hashed = {name: block for name, block in (serving | bare).items() if name not in apart}
    both = compile_(uv, "pyproject.toml", "requirements.in", "requirements-dev.in", pins=pins)
    write("requirements.txt", f"--extra-index-url {CPU_INDEX}\n{pins}")
    write("requirements.lock", "".join(hashed[name] for name in sorted(hashed)))
    write("requirements-dev.txt", "".join(both[name] for name in both if name not in serving))
    return 0


if __name__ == "__main__":
    sys.exit(main())
