"""Make this folder ready: ``python -m scripts.prepare [--tests | --here]``.

What is ready already is left alone, so that a second run takes well under a second.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from scripts.browser import ensure_browser
from scripts.environment import ROOT, SetupError, digest, install, locked, run
from scripts.lock import split_blocks

STAMPS = ROOT / "build" / "stamps.json"


def read_stamps() -> dict[str, str]:
    """Read what was built before, by name, with a digest of what it was built from."""
    stamps: dict[str, str] = json.loads(STAMPS.read_text()) if STAMPS.exists() else {}
    return stamps


def write_stamp(name: str, state: str) -> None:
    """Record what was built just now."""
    STAMPS.parent.mkdir(exist_ok=True)
    temporary = STAMPS.with_suffix(".tmp")
    temporary.write_text(json.dumps(read_stamps() | {name: state}, indent=1))
    temporary.replace(STAMPS)


def model_state() -> str:
    """Make a digest of all that export.onnx is compiled from."""
    names = ("convert", "graph", "padding", "rebuild")
    compilers = [ROOT / "icon_classifier" / f"{name}.py" for name in names]
    return digest(ROOT / "export.pkl", ROOT / "export.pkl.sha256", *compilers)


def compile_model(python: Path) -> None:
    """Compile export.pkl to export.onnx, unless the very same was done before."""
    export, model = ROOT / "export.pkl", ROOT / "export.onnx"
    state = model_state()
    if not export.exists() or (model.exists() and read_stamps().get("model") == state):
        return
    print("Compiling export.pkl to export.onnx.", flush=True)
    hint = "export.pkl could not be compiled (the reason is above)."
    run(python, "-m", "icon_classifier", "convert", failure=hint)
    write_stamp("model", state)


def prepare(*, tests: bool = False) -> Path:
    """Install, compile the model; return the environment's Python.

    Parameters
    ----------
    tests : bool
        Whether tests are to be run: their tools and a browser are installed, too.
    """
    with locked(ROOT / "build" / "prepare.lock"):
        python = install(tests=tests)
        if tests:
            ensure_browser(python)
        compile_model(python)
    return python


def prepare_here() -> None:
    """Do the same on a host that has installed requirements.txt into this very Python."""
    python = Path(sys.executable)
    pip = (python, "-m", "pip", "install", "--quiet", "--no-deps")
    lock = split_blocks((ROOT / "requirements.lock").read_text())
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as bare:
        bare.write(lock["fastbook"])  # its two photographs are the page's examples
        bare.flush()
        failure = "pip could not install the examples (its reason is above)."
        run(*pip, "--require-hashes", "-r", bare.name, failure=failure)
    failure = "pip could not install this package (its reason is above)."
    # Not as a link to this folder: a host may run it from another one.
    run(*pip, "--no-build-isolation", ROOT, failure=failure)
    compile_model(python)


def main(argv: list[str] | None = None) -> int:
    """Prepare; 1 and the reason on standard error if that cannot be done."""
    parser = argparse.ArgumentParser(description="Make this folder ready to serve or to test.")
    parser.add_argument("--tests", action="store_true", help="install what tests need, too")
    parser.add_argument("--here", action="store_true", help="on a host: in the Python that runs")
    arguments = parser.parse_args(argv)
    try:
        if arguments.here:
            prepare_here()
        else:
            prepare(tests=arguments.tests)
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
