"""What documents and hosts' files say to start a server starts without a warning."""

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
    "make app": shlex.join(serve.command("python", 0)[2:]).replace("--port=0", "--port=$PORT"),
}
"""What serves, and the module that does."""

_COMMAND = re.compile(
    r"(?:^|# or: )((?:[A-Z_]+=\S+ )*)(?:web: |exec |python -m |\.venv/bin/)*"
    r"(voila|jupyter server|icon-classifier api|uvicorn|make app$)((?: +[^\s#─—]\S*)*)"
)
_WARNING = re.compile(r"\bwarn|\[[WE] |unrecogni|deprecat|error|traceback", re.IGNORECASE)


def code(document: Path) -> list[str]:
    """Return the indented lines and the inline code of a Markdown document."""
    text = document.read_text()
    blocks = re.findall(r"^(?: {4})+(\S.*)$", text, re.MULTILINE)
    return blocks + re.findall(r"`([^`\n]+)`", re.sub(r"^    .*$", "", text, flags=re.MULTILINE))


def commands() -> list[str]:
    """Collect the commands, each with its variables and with `python -m` for the program."""
    image = re.findall(r"^CMD (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1]
    procfile = deploy_check.procfile_command(ROOT)
    texts = [procfile, json.loads(image)[2]]
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        texts += code(document)
        options = re.findall(r"`(--[A-Z]\w+\.\w+=\S+)`", document.read_text())
        texts += [f"{procfile} {option}" for option in options if not option.endswith("=value")]
    found = [match for text in texts for match in _COMMAND.finditer(text)]
    return sorted({f"{match[1]}python -m {MODULES[match[2]]}{match[3]}" for match in found})


def test_commands_of_the_hosts_and_the_documents_are_found() -> None:
    found = commands()
    modules = {command.partition("python -m ")[2].split()[0] for command in found}
    assert modules == {"voila", "jupyter_server", "icon_classifier", "uvicorn"}
    assert len(found) >= 12
    assert [command for command in found if command.startswith("FEEDBACK_FOLDER=")]


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
    if "jupyter_server" in command:
        command += " --allow-root"
    shell = ["-c", f"exec env {command.replace('python', sys.executable, 1)}"]
    prefix = re.search(r"--Voila\.base_url=/(\S+)", command)
    ready = f"{prefix[1] if prefix else ''}healthz" if "voila" in command else ""
    with running(shell, port=port, ready=ready, python="sh") as server:
        assert not _WARNING.search(server.text), server.text
        assert "voila" not in command or not server.warnings


@pytest.mark.slow
def test_page_is_not_moved_to_another_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = serve.command(sys.executable, taken.getsockname()[1])
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"no available port" in done.stderr
