"""The rival for comfort: a Gradio app on the same export.pkl, its packages in their own folder."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from scripts.environment import tool_requirements
from scripts.tools import tool_folder
from tests.support.servers import ROOT, Server, free_port, running

VERSION = re.findall(r"^gradio==(\S+)", tool_requirements("gradio"), re.MULTILINE)[0]


@contextlib.contextmanager
def gradio_app(export: Path = ROOT / "export.pkl") -> Iterator[Server]:
    """Serve the app for the length of a block."""
    tool_folder("gradio")  # installed before the server's time to start begins
    port = free_port()
    command = ["-m", "scripts.tools", "gradio", "-m", "bench.rivals.gradio_page"]
    with running([*command, str(port), str(export)], port=port, ready="") as server:
        yield server
