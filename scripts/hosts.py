"""How each host builds this project, played on one machine.

Nothing here knows limits: :mod:`scripts.deploy_check` compares what comes back with them.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.environment import CPU_INDEX, ROOT, SetupError, reachable


def call(command: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a step of a build with its output in build/deploy-check.log.

    Raises
    ------
    SetupError
        If it fails, with the end of its output.
    """
    log = ROOT / "build" / "deploy-check.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("a") as file:
        file.write(f"\n$ {' '.join(map(str, command))}\n")
        file.flush()
        begin = file.tell()
        answer = subprocess.run(
            command, cwd=cwd, env=env, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if answer.returncode:
        end = "\n".join(log.read_bytes()[begin:].decode(errors="replace").splitlines()[-15:])
        raise SetupError(f"{command[0]} failed with {answer.returncode}:\n{end}")


def clone(folder: Path) -> Path:
    """Clone what is committed here into a fresh folder."""
    call(["git", "clone", "--quiet", "--no-local", ROOT, folder], ROOT)
    return folder


def install_requirements(python: Path, requirements: Path) -> str:
    """Install as a host does by itself, PyTorch's CPU index left out where it does not answer.

    Returns
    -------
    str
        A remark for the table: what differs from the host.
    """
    text = requirements.read_text()
    remark = ""
    if not reachable(f"{CPU_INDEX}/torch/"):
        text = re.sub(r"^--extra-index-url .*\n", "", text, flags=re.MULTILINE)
        remark = "without PyTorch's index, which is out of reach here"
    reduced = requirements.with_name("requirements-played.txt")
    reduced.write_text(text)
    # Bytecode of what stays is made after trimming: the same in the end, minutes sooner.
    command: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
    call([*command, "-r", reduced], requirements.parent)
    reduced.unlink()
    return remark


def ways_out() -> dict[str, str]:
    """Collect what tells pip and npm how this machine reaches its registries.

    Returns
    -------
    dict of str to str
        Environment variables; a machine without any special way has none.
    """
    ways = ("PIP_", "NODE_", "NPM_", "npm_", "SSL_")
    found = {name: value for name, value in os.environ.items() if name.startswith(ways)}
    listed = _output(sys.executable, "-m", "pip", "config", "list")
    for name, value in re.findall(r"^global\.([\w-]+)='(.*)'$", listed, re.MULTILINE):
        found.setdefault(f"PIP_{name.replace('-', '_').upper()}", value)
    for name in ("cafile", "registry"):
        value = _output("npm", "config", "get", name).strip() if shutil.which("npm") else ""
        if value and value != "null":
            found.setdefault(f"npm_config_{name}", value)
    return found


def local_ways_out() -> list[Path]:
    """Find the files and folders of this machine that :func:`ways_out` names.

    Of a local index, a folder ``simple`` (PEP 503), the one above: its pages point to files beside.
    """
    words = re.split(r"[\s:=]+", " ".join(ways_out().values()).replace("file://", " "))
    named = {Path(word) for word in words if word.startswith("/")}
    found = {path.parent if path.name == "simple" else path for path in named}
    return sorted(path for path in found if path.exists() and path != Path("/usr"))


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True).stdout


def pack(folder: Path, target: Path, leave_out: Sequence[str] = ()) -> float:
    """Pack a folder as a slug is packed and return the size in megabytes (1e6 bytes)."""

    def keep(item: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if Path(item.name).name in leave_out else item

    with tarfile.open(target, "w:gz", compresslevel=6) as archive:
        archive.add(folder, arcname="app", filter=keep)
    return target.stat().st_size / 1e6


def pack_library(target: Path) -> float:
    """Pack Python's own library, which a virtual environment has not, as :func:`pack` does."""
    library = Path(os.__file__).parent
    leave_out = ["__pycache__", "test", "idlelib", "site-packages", "dist-packages"]
    return pack(library, target, [*leave_out, *(path.name for path in library.glob("config-*"))])


def procfile_command(folder: Path) -> str:
    """Read the command of the web process."""
    match = re.search(r"^web: (.+)$", (folder / "Procfile").read_text(), re.MULTILINE)
    if match is None:
        raise SetupError("Procfile has no line for web")
    return match[1]


def run_lines(dockerfile: str) -> list[list[tuple[str, str]]]:
    """Read the instructions of each stage of a Dockerfile, continued lines joined.

    Returns
    -------
    list of list of (str, str)
        For each stage its instructions: the word in capitals, and the rest of the line.
    """
    joined = re.sub(r"\\\n\s*", "", dockerfile)
    stages: list[list[tuple[str, str]]] = []
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stages.append([])
        if word.isupper() and stages:
            stages[-1].append((word, rest.strip()))
    return stages


def venv(folder: Path) -> Path:
    """Make a fresh virtual environment and return its Python."""
    call([sys.executable, "-m", "venv", folder], ROOT)
    return folder / "bin" / "python"


def fresh(folder: Path) -> Path:
    """Empty a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
