"""Prepare this folder for serving or testing: ``python -m scripts.prepare``.

What is ready already is left alone, so that a second run takes about a second.
"""

from __future__ import annotations

import argparse
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


def compile_model(python: Path | str) -> None:
    """Compile export.pkl to export.onnx where that is missing or stale."""
    if (ROOT / "export.pkl").exists():
        hint = "export.pkl could not be compiled (the reason is above)."
        run(python, "-m", "icon_classifier", "convert", "--if-needed", failure=hint)


def prepare(*, tests: bool = False, extras: Sequence[str] = ()) -> Path:
    """Install, with the tools of the tests or without, and compile; return the Python."""
    with locked(ROOT / "build" / "prepare.lock"):
        python = install(tests=tests, extras=extras)
        if tests:
            ensure_browser(python)
        compile_model(python)
    return python


def prepare_here() -> None:
    """Do the same on a host that has installed requirements.txt into the Python that runs this."""
    lock = split_blocks((ROOT / "requirements.lock").read_text())
    # The example photos of the page, and what builds this package.
    install_hashed(sys.executable, lock["fastbook"] + lock["setuptools"])
    # Not editable: a host may run the package from another folder than the one of the build.
    pip_install(sys.executable, "--no-deps", "--no-build-isolation", ROOT)
    compile_model(sys.executable)


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
