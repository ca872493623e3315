"""Install what some targets need besides: ``python -m scripts.tools ray nginx wrk``."""

import shutil
import sys
from pathlib import Path

from scripts.environment import ROOT, VENV, SetupError, apt_install, run

RAY = "ray[data,serve]==2.60.0"
"""The one version that `make test-scale` tests; too large for everybody's set-up."""

_PATH = "/usr/sbin"  # where Debian keeps nginx, out of a user's PATH


def find(name: str) -> str | None:
    """Find a program."""
    return shutil.which(name) or shutil.which(name, path=_PATH)


def install_tool(name: str) -> None:
    """Install a program of Debian's where root, unless it is there.

    Raises
    ------
    SetupError
        If it cannot be installed here.
    """
    if find(name) is None:
        apt_install(name)
    if find(name) is None:
        raise SetupError(f"{name} is missing: please install it (on Debian: apt install {name}).")


def install_ray() -> None:
    """Install Ray into the environment, unless it is there, moving no version that is locked."""
    if list(VENV.glob(f"lib/python*/site-packages/ray-{RAY.partition('==')[2]}.dist-info")):
        return
    pins = Path(ROOT, "requirements.txt"), Path(ROOT, "requirements-dev.txt")
    locked = ROOT / "build" / "versions.txt"
    locked.parent.mkdir(exist_ok=True)
    lines = [line for pin in pins for line in pin.read_text().splitlines() if "==" in line]
    locked.write_text("\n".join(line.rstrip(" \\") for line in lines) + "\n")
    hint = "Ray could not be installed (the reason is above)."
    python = VENV / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", RAY, "-c", locked, failure=hint)


def main() -> int:
    """Install what is named; exit code 1 with one line if that fails."""
    try:
        for name in sys.argv[1:]:
            install_ray() if name == "ray" else install_tool(name)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
