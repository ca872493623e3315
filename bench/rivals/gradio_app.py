"""The rival for comfort: a Gradio app on the same export.pkl, its packages in their own folder."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tests.support.servers import ROOT, Server, free_port, running

VERSION = "6.31.0"
ENVIRONMENT = ROOT / ".cache" / "gradio"


def gradio_python() -> Path:
    """The Python that has Gradio, installed where that was not done yet.

    What Gradio does not bring itself, torch and fastai, comes from the environment of this Python.
    """
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / f"gradio-{VERSION}"
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        install = [python, "-m", "pip", "install", "--quiet", f"gradio=={VERSION}"]
        subprocess.run(install, check=True)
        (folder,) = ENVIRONMENT.glob("lib/python*/site-packages")
        (folder / "ours.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
        stamp.touch()
    return python


@contextlib.contextmanager
def gradio_app(export: Path = ROOT / "export.pkl") -> Iterator[Server]:
    """Serve the app for the length of a block."""
    port = free_port()
    command = ["-m", "bench.rivals.gradio_page", str(port), str(export)]
    with running(command, port=port, ready="", python=gradio_python()) as server:
        yield server
