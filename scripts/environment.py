"""Create the virtual environment and install the locked packages.

Standard library only, as it runs before anything is installed. Each step is recorded in
``.venv/installed.json`` with a digest of its input, and repeated when that changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from icon_classifier.files import write_file

ROOT = Path(__file__).resolve().parent.parent
MINORS = (14, 13, 12, 11)
"""Versions of Python 3 for which every locked package has wheels, the newest first."""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH_PAIR = ("torch", "torchvision")
SINGLE_EXTRAS = ("notebook", "scale")
"""Extras for a single target, installed into .venv; locked in requirements-tools.lock."""
WHEELS = ("--only-binary", ":all:")
"""Building from sources would download tools for it that no hash covers."""
DEV_LINE = "# dev"
"""Divides requirements.lock: what serves and trains, and what tests need in addition."""


_WHAT = {
    "packages": "the packages that are needed, which takes some minutes",
    "torch": "torch, about 200 MB",
    "package": "this project itself",
    "tests": "what tests need",
    "notebook": "JupyterLab",
    "scale": "Ray",
}
"""What each step installs."""


class SetupError(Exception):
    """Set-up cannot continue; the text says what to do."""


def digest(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock, so that two set-ups in one folder run one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another set-up is running in this folder; waiting for it.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(*command: str | Path, failure: str) -> None:
    """Run a command with its output shown; raise :exc:`SetupError` with `failure` if it fails."""
    sys.stdout.flush()
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SetupError(failure)


def reachable(url: str, timeout: float = 3) -> bool:
    """Return whether a server answers at `url` within `timeout` seconds, with any status."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - our own constant
    try:
        with urllib.request.urlopen(request, timeout=timeout):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def split_blocks(text: str) -> dict[str, str]:
    """Map each package of a locked file to its requirements, with markers and hashes.

    A package has two requirements where its version depends on the Python release.
    """
    blocks: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", text.strip()):
        if block and not block.startswith(("#", "-")):
            name = re.split(r"[=\[ ;]", block, maxsplit=1)[0]
            blocks[name] = blocks.get(name, "") + block + "\n"
    return blocks


def pip_install(python: Path | str, *arguments: str | Path) -> None:
    """Run pip, which prints errors alone, without its compilation: a third of the time."""
    run(
        *(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-compile", *arguments),
        failure="pip could not install what is needed (its reason is above). Fix that and "
        "run the same command again; what was downloaded is kept.",
    )


def install_hashed(python: Path | str, requirements: str, *more: str) -> None:
    """Install a part of a locked file, each file checked against its hash."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        checked = ("--require-hashes", "--no-deps", "--no-build-isolation", *more)
        pip_install(python, *WHEELS, *checked, "-r", file.name)


def torch_pins(requirements: str) -> list[str]:
    """Return the pins of torch and torchvision in the text of requirements.txt."""
    names = "|".join(TORCH_PAIR)
    return re.findall(rf"^(?:{names})==[^\s;]+", requirements, flags=re.MULTILINE)


def needs_cuda(report: str) -> bool:
    """Return whether the report of ``pip install --dry-run --report -`` names a CUDA build."""
    wanted = [
        requirement
        for item in json.loads(report)["install"]
        for requirement in item["metadata"].get("requires_dist", [])
    ]
    cuda = re.compile(r"(nvidia|cuda|triton)\b")
    return any(cuda.match(text) and "extra ==" not in text for text in wanted)


def torch_index(python: Path, pins: list[str]) -> list[str]:
    """Return pip's options for the index with the pair for CPUs: PyTorch's own, or PyPI.

    Raises
    ------
    SetupError
        If there is none for this Python and this machine.
    """
    index = ["--extra-index-url", CPU_INDEX] if reachable(f"{CPU_INDEX}/torch/") else []
    options = ["--quiet", "--dry-run", "--no-deps", "--ignore-installed", "--report", "-"]
    command = [str(python), "-m", "pip", "install", *WHEELS, *options, *index, *pins]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    minor = minor_of(python)
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SetupError(
            f"pip finds no {' and '.join(pins)} for Python 3.{minor} on this machine: {reason}"
        )
    if not index and sys.platform == "linux" and needs_cuda(answer.stdout):
        raise SetupError(
            f"The only {pins[0]} that pip finds for Python 3.{minor} is the CUDA build, with "
            f"several GB of packages that a CPU does not need. Let this machine reach {CPU_INDEX}, "
            f"or download the file torch-…+cpu-cp3{minor}-… from there on another machine, put it "
            "into a folder, and run: PIP_FIND_LINKS=/that/folder make app"
        )
    return index


def install_torch(python: Path, pins: list[str]) -> None:
    """Install the pair for CPUs."""
    pip_install(python, *WHEELS, "--no-deps", *torch_index(python, pins), *pins)


def install_package(python: Path) -> None:
    """Install this package in place: its command and its entry points."""
    os.environ["PYTHONWARNINGS"] = "ignore"  # setuptools warns of every editable installation
    options = ("--no-deps", "--no-build-isolation", "--editable")
    pip_install(python, *options, ROOT)
    del os.environ["PYTHONWARNINGS"]
    # An installation in place leaves out the files that a wheel puts below the environment.
    config = python.parents[1] / "etc" / "jupyter" / "jupyter_server_config.d"
    config.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "icon_classifier" / "server" / "icon_classifier.json", config)


def apt_install(package: str) -> bool:
    """Install a Debian package as root with apt-get; return whether that was possible."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    print(f"Installing Debian's {package}.", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", package]):
        if subprocess.run(["apt-get", *command], env=environment, check=False).returncode:
            return False
    return True


def ensure_program(name: str) -> Path:
    """Find a program, or install the Debian package of its name."""
    path = f"{os.environ['PATH']}:/usr/sbin"  # where Debian has nginx, outside of a user's PATH
    found = shutil.which(name, path=path) or (apt_install(name) and shutil.which(name, path=path))
    if not found:
        raise SetupError(f"{name} is missing; install it (on Debian: sudo apt install {name}).")
    return Path(found)


def minor_of(python: Path | str) -> int | None:
    """Return the 11 of a Python 3.11; None if it does not run, like a pyenv shim without one."""
    try:
        answer = subprocess.run(
            [python, "-c", "import sys; print(sys.version_info[0], sys.version_info[1])"],
            check=False,
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    major, _, minor = answer.stdout.strip().partition(" ")
    return int(minor) if major == "3" else None


def usable_pythons(names: Sequence[str]) -> dict[int, str]:
    """Map the minor version of each usable Python among `names` to its name, the newest first."""
    minors = {minor_of(name): name for name in reversed(names)}
    return {minor: minors[minor] for minor in MINORS if minor in minors}


def tool_requirements(name: str) -> str:
    """Return what requirements-tools.lock has for a tool, with hashes."""
    text = (ROOT / "requirements-tools.lock").read_text()
    sections = re.split(r"^# (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(sections[1::2], sections[2::2], strict=True))[name]


class Environment:
    """A virtual environment, and a record of the steps of its installation.

    Parameters
    ----------
    folder : Path
        Where it is.
    base : str, optional
        The Python to create it with; by default the one that PYTHON names, or else the newest of
        those on PATH and the one that runs this.
    """

    def __init__(self, folder: Path = ROOT / ".venv", base: str | None = None) -> None:
        self.folder = folder
        self.base = base or os.environ.get("PYTHON")
        self.python = folder / "bin" / "python"
        self.record = folder / "installed.json"
        self.unfinished = folder / "unfinished"  # exists while it is created, and during a step

    def create(self, pins: list[str]) -> None:
        """Create the environment with the newest Python for which pip has these pins of torch.

        One of another version than the Python that was asked for is replaced, and so is one whose
        installation was interrupted.

        A pip that was killed can leave half a package which it later takes for a whole one. Only
        a fresh start is safe, and pip's cache makes that quick.
        """
        interrupted = self.unfinished.exists()
        if interrupted:
            print("The last set-up was interrupted; starting .venv from scratch.", flush=True)
        wanted = {minor_of(self.base)} & set(MINORS) if self.base else set(MINORS)
        test = f"import pip, sys; sys.exit(sys.version_info[1] not in {wanted})"
        if (
            not interrupted
            and self.python.exists()
            and not subprocess.run(
                [self.python, "-c", test], check=False, capture_output=True
            ).returncode
        ):
            return
        on_path = [*(f"python3.{minor}" for minor in MINORS), sys.executable]
        pythons = usable_pythons([self.base] if self.base else on_path)
        if not pythons:
            found = ".".join(map(str, sys.version_info[:3]))
            raise SetupError(
                f"Python 3.{MINORS[-1]} to 3.{MINORS[0]} is needed, and found was {found}. Install "
                "one (on Debian: sudo apt install python3 python3-venv) or name it: make app "
                "PYTHON=/path/to/python3"
            )
        for minor, python in pythons.items():
            self._create_with(python, minor)
            if minor == min(pythons):
                return
            try:
                torch_index(self.python, pins)
            except SetupError:
                print(f"pip has no {pins[0]} for CPUs for it; trying an older one.", flush=True)
            else:
                return

    def _create_with(self, python: str, minor: int) -> None:
        test = "import importlib.util, sys; sys.exit(not importlib.util.find_spec('ensurepip'))"
        incomplete = subprocess.run([python, "-c", test], check=False).returncode
        if incomplete and not apt_install(f"python3.{minor}-venv"):
            raise SetupError(
                f"{python} cannot create virtual environments. "
                f"On Debian: sudo apt install python3.{minor}-venv. Then try again."
            )
        print(f"Creating {self.folder.name} with Python 3.{minor}.", flush=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.unfinished.touch()
        # Not by venv's --clear: interrupted, that leaves a Python which installs outside of it.
        for old in self.folder.iterdir():
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            elif old != self.unfinished:
                old.unlink()
        failure = f"Could not create {self.folder} (the reason is above)."
        run(python, "-m", "venv", self.folder, failure=failure)
        self.unfinished.unlink()

    def done(self) -> dict[str, str]:
        """Return the state of each step that succeeded."""
        done: dict[str, str] = json.loads(self.record.read_text()) if self.record.exists() else {}
        return done

    def step(self, name: str, state: str, action: Callable[[], None]) -> None:
        """Run `action` unless it succeeded before with the same `state`."""
        done = self.done()
        if done.get(name) == state:
            return
        self.unfinished.touch()
        try:
            action()
        except SetupError:
            self.unfinished.unlink()  # pip reported an error itself, so it left no half package
            raise
        write_file(self.record, json.dumps(done | {name: state}, indent=1))
        self.unfinished.unlink()


def install(
    *,
    tests: bool = False,
    extras: Sequence[str] = (),
    torch: bool = True,
    environment: Environment | None = None,
) -> Path:
    """Bring an environment up to date, with what tests and `extras` need; return its Python."""
    environment = environment or Environment()
    pins = torch_pins((ROOT / "requirements.txt").read_text())
    environment.create(pins)
    python = environment.python
    packages, _, dev = (ROOT / "requirements.lock").read_text().partition(f"\n{DEV_LINE}\n")
    project = str(ROOT) + (ROOT / "pyproject.toml").read_text()
    steps: list[tuple[str, str, Callable[[], None]]] = [
        ("packages", digest(packages), lambda: install_hashed(python, packages)),
        ("package", digest(project), lambda: install_package(python)),
    ]
    if torch:
        steps.append(("torch", digest(str(pins)), lambda: install_torch(python, pins)))
    if tests:
        steps.append(("tests", digest(dev), lambda: install_hashed(python, dev)))
    for name in extras:
        more = tool_requirements(name)
        steps.append((name, digest(more), functools.partial(install_hashed, python, more)))
    done = environment.done()
    missing = [(name, state, action) for name, state, action in steps if done.get(name) != state]
    for number, (name, state, action) in enumerate(missing, 1):
        print(f"{number} of {len(missing)}: installing {_WHAT[name]}.", flush=True)
        environment.step(name, state, action)
    return python
