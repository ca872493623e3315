"""The virtual environment: made, filled from the locked files, and healed.

Standard library only, as it runs before anything is installed. Each step of the installation is
recorded in ``.venv/installed.json`` with a digest of what it was made from, so that a step is
done again exactly when its input changes.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH_PAIR = ("torch", "torchvision")
_CUDA = re.compile(r"(nvidia|cuda|triton)\b", re.IGNORECASE)


class SetupError(Exception):
    """Set-up cannot go on; the text says what to do."""


def digest(*parts: str | Path) -> str:
    """SHA-256 of texts and of files' contents, in order; a missing file counts as empty."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else b""
        if isinstance(part, Path) and part.is_file():
            data = part.read_bytes()
        sha.update(f"{len(data)}:".encode() + data)
    return sha.hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock, so that two set-ups in one folder take turns."""
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
    """Whether a server answers at `url` within `timeout` seconds, whatever it answers."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - our own constant
    try:
        with urllib.request.urlopen(request, timeout=timeout):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def torch_pins(requirements: str) -> list[str]:
    """Find the pins of torch and torchvision in the text of requirements.txt."""
    names = "|".join(TORCH_PAIR)
    return re.findall(rf"^(?:{names})==[^\s;]+", requirements, flags=re.MULTILINE)


def cuda_requirements(report: str) -> list[str]:
    """Find in pip's installation report what belongs to CUDA, which a CPU has no use for.

    Parameters
    ----------
    report : str
        Output of ``pip install --dry-run --report -``.

    Returns
    -------
    list of str
        Requirements such as ``nvidia-cublas; sys_platform == 'linux'``; empty for a CPU build.
    """
    wanted = [
        requirement
        for item in json.loads(report)["install"]
        for requirement in item["metadata"].get("requires_dist", [])
    ]
    return [text for text in wanted if _CUDA.match(text) and "extra ==" not in text]


def apt_install(package: str) -> bool:
    """Install a Debian package where that is possible: as root, with apt-get. True if it was."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    print(f"Installing Debian's {package}.", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", package]):
        if subprocess.run(["apt-get", *command], env=environment, check=False).returncode:
            return False
    return True


class Environment:
    """A virtual environment and the steps of its installation; see :func:`install`.

    Parameters
    ----------
    folder : Path
        Where it is or will be.

    Attributes
    ----------
    python : Path
        Its Python.
    record : Path
        What was done, as JSON: the name of a step and a digest of what it was made from.
    unfinished : Path
        There while a step runs; found at the start, it tells that the last one was cut short.
    """

    def __init__(self, folder: Path = VENV) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.record = folder / "installed.json"
        self.unfinished = folder / "unfinished"

    def create(self) -> None:
        """Make the environment, again from nothing if the last installation was cut short.

        A pip that was killed can leave half a package which it later takes for a whole one;
        nothing but a fresh start is sure, and pip's cache makes that quick.
        """
        if self.unfinished.exists():
            print("The last set-up was cut short; starting .venv anew.", flush=True)
            shutil.rmtree(self.folder)
        if self._runs("-c", "import sys; sys.exit(sys.version_info[:2] != (3, 11))"):
            return
        if sys.version_info[:2] != (3, 11):
            found = ".".join(map(str, sys.version_info[:3]))
            raise SetupError(
                f"Python 3.11 is needed, and this is {found}. Install it (on Debian: apt install "
                "python3.11 python3.11-venv) or name it: make app PYTHON=/path/to/python3.11"
            )
        if not importlib.util.find_spec("ensurepip") and not apt_install("python3.11-venv"):
            raise SetupError(
                "This Python cannot make virtual environments. "
                "On Debian: sudo apt install python3.11-venv. Then try again."
            )
        print("Making .venv.", flush=True)
        run(
            *(sys.executable, "-m", "venv", "--clear", self.folder),
            failure="Could not make .venv (the reason is above).",
        )

    def _runs(self, *arguments: str) -> bool:
        if not self.python.exists():
            return False
        command = [str(self.python), *arguments]
        return not subprocess.run(command, check=False, capture_output=True).returncode

    def pip(self, *arguments: str | Path) -> None:
        """Run pip in the environment, its progress shown."""
        run(
            # What is never imported need not be compiled to bytecode: a third of the time.
            *(self.python, "-m", "pip", "install", "--no-compile", *arguments),
            failure="pip could not install what is needed (its reason is above). Mend that and "
            "run the same command again; what was downloaded is kept.",
        )

    def step(self, name: str, state: str, action: Callable[[], None]) -> None:
        """Do `action` unless it was done before with the same `state`."""
        done: dict[str, str] = {}
        if self.record.exists():
            done = json.loads(self.record.read_text())
        if done.get(name) == state:
            return
        self.unfinished.touch()
        try:
            action()
        except SetupError:
            self.unfinished.unlink()  # pip itself stopped: whatever it left is whole
            raise
        temporary = self.record.with_suffix(".tmp")
        temporary.write_text(json.dumps(done | {name: state}, indent=1))
        temporary.replace(self.record)
        self.unfinished.unlink()

    def packages(self) -> None:
        """Install everything with a known hash; pip first, so that a recent one does the rest."""
        if not self._runs("-m", "pip", "--version"):
            run(self.python, "-m", "ensurepip", failure="Could not put pip into .venv.")
        self.pip("--require-hashes", "--no-deps", "-r", ROOT / "requirements.lock")

    def torch(self, pins: list[str]) -> None:
        """Install the pair for CPUs from PyTorch's index where it answers, else from PyPI."""
        if reachable(f"{CPU_INDEX}/torch/"):
            self.pip("--no-deps", "--extra-index-url", CPU_INDEX, *pins)
            return
        print("PyTorch's CPU index cannot be reached; going on with PyPI alone.", flush=True)
        self.refuse_cuda(pins[0])
        self.pip("--no-deps", *pins)

    def refuse_cuda(self, torch: str) -> None:
        """Stop where the only torch on offer is the CUDA build of several GB."""
        command = [str(self.python), "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps"]
        command += ["--ignore-installed", "--report", "-", torch]
        answer = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        if answer.returncode:
            raise SetupError(f"pip finds no {torch} for this machine (its reason is above).")
        if sys.platform == "linux" and cuda_requirements(answer.stdout):
            raise SetupError(
                f"The only {torch} within reach is the CUDA build, with several GB of packages "
                f"that a CPU does not need. Let this machine reach {CPU_INDEX}, or download "
                "the file torch-…+cpu-cp311-… from there on another one, put it into a folder, "
                "and run: PIP_FIND_LINKS=/that/folder make app"
            )

    def package(self) -> None:
        """Install this package: its command and its entry points."""
        os.environ["PYTHONWARNINGS"] = "ignore"  # setuptools warns of every editable installation
        self.pip("--quiet", "--no-deps", "--no-build-isolation", "--editable", ROOT)
        del os.environ["PYTHONWARNINGS"]

    def test_tools(self) -> None:
        """Install what tests need besides."""
        self.pip("--require-hashes", "--no-deps", "-r", ROOT / "requirements-dev.txt")


def install(*, tests: bool = False) -> Path:
    """Bring `.venv` up to date and return its Python.

    Parameters
    ----------
    tests : bool
        Whether to install what tests need, too.

    Raises
    ------
    SetupError
        If something is missing that set-up cannot mend.
    """
    environment = Environment()
    environment.create()
    pins = torch_pins((ROOT / "requirements.txt").read_text())
    steps: list[tuple[str, str, Callable[[], None]]] = [
        ("packages", digest(ROOT / "requirements.lock"), environment.packages),
        ("torch", digest(*pins), lambda: environment.torch(pins)),
        ("package", digest(ROOT / "pyproject.toml", str(ROOT)), environment.package),
    ]
    if tests:
        state = digest(ROOT / "requirements-dev.txt")
        steps.append(("tests", state, environment.test_tools))
    for name, state, action in steps:
        environment.step(name, state, action)
    return environment.python
