"""Test serving, kernels, the API and the command line on other Pythons: ``make test-pythons``.

Each Python of this machine but the one of .venv gets an environment of its own below build/pythons,
without torch: an export.onnx is there already. They are looked for on PATH and where pyenv and uv
keep theirs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from scripts.environment import MINORS, ROOT, Environment, SetupError, install, usable_pythons

FOLDERS = ("~/.pyenv/versions", "~/.local/share/uv/python")

_UNIT = ("api", "cli", "kernels", "model", "page", "server", "system")
TESTS = (
    *(f"tests/unit/{name}" for name in _UNIT),
    *(f"tests/integration/test_{name}.py" for name in ("api", "kernels", "smoke", "websocket")),
)
NEED_TORCH = (
    *(f"tests/unit/cli/test_{name}.py" for name in ("convert", "evaluate", "summary")),
    *(f"tests/unit/model/test_{name}.py" for name in ("opening", "pipeline")),
)


def other_pythons() -> dict[int, str]:
    """Map the minor version of each Python but this one's to its path."""
    names = [f"python3.{minor}" for minor in MINORS]
    for folder in FOLDERS:
        names += map(str, sorted(Path(folder).expanduser().glob("*/bin/python3")))
    found = usable_pythons(names)
    found.pop(sys.version_info[1], None)
    return found


def main() -> int:
    """Test each; return 1 if one fails."""
    pythons = other_pythons()
    if not pythons:
        print("There is no other Python on this machine; nothing was tested.")
    failed = []
    for minor, base in pythons.items():
        print(f"Python 3.{minor}", flush=True)
        try:
            environment = Environment(ROOT / "build" / "pythons" / f"3.{minor}", base)
            python = install(tests=True, torch=False, environment=environment)
        except SetupError as error:
            print(f"\n{error}", file=sys.stderr)
            return 1
        command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", *TESTS]
        command += [*(f"--ignore={path}" for path in NEED_TORCH), *sys.argv[1:]]
        without = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        if subprocess.run(command, cwd=ROOT, env=without, check=False).returncode:
            failed.append(f"3.{minor}")
    if failed:
        print(f"Tests failed on Python {', '.join(failed)}.", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
