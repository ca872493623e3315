"""Each command in documents and hosts' files that serves starts without a warning."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from icon_classifier.model.session import Model
from scripts import deploy_check, serve
from tests.support.servers import ROOT, free_port, running

MODULES = {
    "voila": "voila",
    "jupyter server": "jupyter_server",
    "icon-classifier api": "icon_classifier api",
    "uvicorn": "uvicorn",
}
"""What serves, and the module that does."""

_PROGRAMS = "|".join(MODULES)
_COMMAND = re.compile(rf"^(?:web: |exec |(?:\.venv/bin/)?)*({_PROGRAMS})\b((?: +[^\s#─—]\S*)*)")
_WARNING = re.compile(r"\bwarn|\[[WE] |unrecogni|deprecat|error|traceback", re.IGNORECASE)


def code(document: Path) -> list[str]:
    """Return the indented lines and the inline code of a Markdown document."""
    text = document.read_text()
    blocks = re.findall(r"^(?: {4})+(\S.*)$", text, re.MULTILINE)
    return blocks + re.findall(r"`([^`\n]+)`", re.sub(r"^    .*$", "", text, flags=re.MULTILINE))


def commands() -> list[str]:
    """Collect the commands, each as `python -m` of this Python would be given it."""
    image = re.findall(r"^CMD (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1]
    procfile = deploy_check.procfile_command(ROOT)
    page = shlex.join(serve.command("python", 0)[2:]).replace("--port=0", "--port=$PORT")
    texts = [procfile, json.loads(image)[2], page]
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        texts += code(document)
        options = re.findall(r"`(--[A-Z]\w+\.\w+=\S+)`", document.read_text())
        texts += [f"{procfile} {option}" for option in options if not option.endswith("=value")]
    found = filter(None, map(_COMMAND.match, texts))
    return sorted({MODULES[match[1]] + match[2] for match in found})


def test_commands_of_the_hosts_and_the_documents_are_found() -> None:
    found = commands()
    assert {command.split()[0] for command in found} == {"icon_classifier", *MODULES.values()} - {
        "icon_classifier api"
    }
    assert 8 <= len(found) <= 14


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_server_starts_without_a_warning(
    command: str, project_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("PORT", str(port))
    monkeypatch.setenv("BROWSER", "true")
    if "$PORT" not in command:
        command += f" --port={port}"
    if command.startswith("jupyter_server"):
        command += " --allow-root"
    shell = ["-c", f"exec {sys.executable} -m {command}"]
    ready = "voila/static/" if command.startswith("voila") else ""
    with running(shell, port=port, ready=ready, python="sh") as server:
        assert not _WARNING.search(server.text), server.text


@pytest.mark.slow
def test_page_is_not_moved_to_another_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = serve.command(sys.executable, taken.getsockname()[1])
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode != 0
    assert b"no available port" in done.stderr
