"""Install a tool and run it: ``python -m scripts.tools audit -m pip_audit``.

The folder is in build/tools. It has what requirements-tools.lock lists for that tool, each file
checked against its hash, and comes before what the Python that runs this has.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from scripts.environment import ROOT, SetupError, digest, install_hashed, tool_requirements


def tool_folder(name: str) -> Path:
    """Install a tool unless that was done before; return its folder."""
    locked = tool_requirements(name)
    folder = ROOT / "build" / "tools" / f"{name}-{digest(locked)[:12]}"
    if not folder.exists():
        unfinished = folder.with_name(f"{name}-unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        install_hashed(sys.executable, locked, "--target", str(unfinished))
        unfinished.rename(folder)
    return folder


def main() -> int:
    """Become Python with the tool, and with the arguments after the tool's name."""
    name, *arguments = sys.argv[1:]
    try:
        folder = tool_folder(name)
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    sys.stdout.flush()
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    os.execve(sys.executable, [sys.executable, *arguments], os.environ | {"PYTHONPATH": path})  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
