"""Prepare this folder for serving or testing: ``python -m scripts.prepare``.

What is ready already is left alone, so that a second run takes about a second.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.browser import ensure_browser
from scripts.environment import (
    ROOT,
    SINGLE_EXTRAS,
    SetupError,
    ensure_program,
    install,
    install_hashed,
    locked,
    pip_install,
    run,
    split_blocks,
)


def convert_model(python: Path | str) -> None:
    """Convert export.pkl to export.onnx where that is missing or stale."""
    if needs_converting(python):
        hint = "export.pkl could not be converted (the reason is above)."
        run(python, "-m", "icon_classifier", "convert", failure=hint)


def needs_converting(python: Path | str) -> bool:
    """Return whether there is an export.pkl without the export.onnx that belongs to it."""
    test = "from icon_classifier.model.opening import is_up_to_date as test"
    code = f"import sys; {test}; sys.exit(not test('export.onnx', 'export.pkl'))"
    return (ROOT / "export.pkl").exists() and bool(
        subprocess.run([python, "-c", code], cwd=ROOT, check=False).returncode
    )


def prepare(*, tests: bool = False, extras: Sequence[str] = (), only_serving: bool = False) -> Path:
    """Install, with the tools of the tests or without, and convert; return the Python.

    For serving alone torch is installed only where there is something to convert.
    """
    with locked(ROOT / "build" / "prepare.lock"):
        python = install(tests=tests, extras=extras, torch=not only_serving)
        if tests:
            ensure_browser(python)
        if not only_serving:
            convert_model(python)
        elif needs_converting(python):
            try:
                install()
            except SetupError as error:
                raise SetupError(
                    f"{error}\nThe page needs export.onnx, which torch converts from export.pkl: "
                    "name a Python that has torch (make app PYTHON=/path/to/python3), or copy "
                    "export.onnx from a machine where `make setup` made it."
                ) from error
            convert_model(python)
    return python


def prepare_here() -> None:
    """Do the same on a host that has installed requirements.txt into the Python that runs this."""
    lock = split_blocks((ROOT / "requirements.lock").read_text())
    # The example photos of the page, and what builds this package.
    install_hashed(sys.executable, lock["fastbook"] + lock["setuptools"])
    # Not editable: a host may run the package from another folder than the one of the build.
    pip_install(sys.executable, "--no-deps", "--no-build-isolation", ROOT)
    convert_model(sys.executable)


def main(argv: list[str] | None = None) -> int:
    """Prepare; return 1 with the reason on standard error if that fails."""
    parser = argparse.ArgumentParser(description="Prepare this folder for serving or testing.")
    parser.add_argument("--tests", action="store_true", help="install what tests need, too")
    parser.add_argument(
        "--extra", action="append", default=[], choices=SINGLE_EXTRAS, help="install it, too"
    )
    parser.add_argument("--program", help="install this program of Debian's, too")
    parser.add_argument("--here", action="store_true", help="on a host: in the Python that runs")
    arguments = parser.parse_args(argv)
    try:
        if arguments.here:
            prepare_here()
        else:
            if arguments.program:
                ensure_program(arguments.program)
            prepare(tests=arguments.tests, extras=arguments.extra)
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
