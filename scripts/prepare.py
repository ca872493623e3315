"""Make this folder ready: ``python -m scripts.prepare [--tests]``.

What is ready already is left alone, so that a second run takes well under a second.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from scripts.browser import ensure_browser
from scripts.environment import ROOT, SetupError, digest, install, locked, run

__all__ = ["build_template", "compile_model", "main", "prepare"]

TEMPLATE = ROOT / "template"
STAMPS = ROOT / "build" / "stamps.json"


def build_template() -> None:
    """Build the page's template where node is there and its sources changed."""
    if not (TEMPLATE / "package.json").exists():
        return
    ignored = {"node_modules", "build"}
    sources = sorted(
        path
        for path in TEMPLATE.rglob("*")
        if path.is_file() and not ignored.intersection(path.relative_to(TEMPLATE).parts)
    )
    state = digest(*sources)
    stamps = json.loads(STAMPS.read_text()) if STAMPS.exists() else {}
    if stamps.get("template") == state:
        return
    if shutil.which("npm") is None:
        print("node is not installed: the page uses Voilà's own template.", flush=True)
        return
    hint = "The page's template could not be built (the reason is above)."
    run("npm", "--prefix", TEMPLATE, "ci", "--no-audit", "--no-fund", failure=hint)
    run("npm", "--prefix", TEMPLATE, "run", "build", failure=hint)
    STAMPS.write_text(json.dumps(stamps | {"template": state}))


def compile_model(python: Path) -> None:
    """Compile export.pkl to export.onnx; the command itself skips what is fresh."""
    if (ROOT / "export.pkl").exists():
        hint = "export.pkl could not be compiled (the reason is above)."
        run(python, "-m", "icon_classifier", "convert", failure=hint)


def prepare(*, tests: bool = False) -> Path:
    """Install, build the template, compile the model; the environment's Python.

    Parameters
    ----------
    tests : bool
        Whether tests are to be run: their tools and a browser are installed, too.
    """
    with locked(ROOT / "build" / "prepare.lock"):
        python = install(tests=tests)
        if tests:
            ensure_browser(python)
        build_template()
        compile_model(python)
    return python


def main(argv: list[str] | None = None) -> int:
    """Prepare; 1 and the reason on standard error if that cannot be done."""
    parser = argparse.ArgumentParser(description="Make this folder ready to serve or to test.")
    parser.add_argument("--tests", action="store_true", help="install what tests need, too")
    try:
        prepare(tests=parser.parse_args(argv).tests)
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
