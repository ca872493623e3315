"""Serving, the API, the command line and set-up without what only Linux has."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from icon_classifier.cli.smoke import smoke
from tests.support.models import write_model
from tests.support.pictures import encode
from tests.support.servers import ROOT, free_port, project_copy, running, voila

pytestmark = pytest.mark.slow

WITHOUT_LINUX = ROOT / "tests" / "support" / "without_linux"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to serve, with a model of three colours and a red photo."""
    write_model(project_copy(tmp_path))
    (tmp_path / "red.png").write_bytes(encode(Image.new("RGB", (40, 30), "red")))
    return tmp_path


def python(*arguments: str | Path) -> str:
    """Run Python without what only Linux has; return what it prints."""
    path = os.pathsep.join(map(str, (WITHOUT_LINUX, ROOT)))
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": path},
        cwd=ROOT,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    ).stdout


def test_nothing_of_linux_is_there() -> None:
    python("-c", "import os, sys; sys.exit(hasattr(os, 'pidfd_open'))")
    with pytest.raises(subprocess.CalledProcessError):
        python("-c", "open('/proc/self/statm')")


def test_page_answers(folder: Path) -> None:
    with voila(folder, path=WITHOUT_LINUX) as server:
        report = smoke(server.url, folder / "red.png", "red", 120)
        assert report.label == "red"
        assert "This system cannot fork kernels" in server.text
        with urllib.request.urlopen(f"{server.url}healthz", timeout=60) as answer:
            assert answer.status == 200


def test_api_answers(folder: Path) -> None:
    port = free_port()
    command = ["-m", "icon_classifier", "api", "--model", str(folder), "--port", str(port)]
    with running(command, port=port, ready="healthz", path=WITHOUT_LINUX) as server:
        photo = (folder / "red.png").read_bytes()
        request = urllib.request.Request(f"{server.url}classify", data=photo)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert b'"label":"red"' in answer.read()


def test_command_line_answers(folder: Path) -> None:
    printed = python("-m", "icon_classifier", "predict", folder / "red.png", "--model", folder)
    assert printed.split("\t")[:2] == [str(folder / "red.png"), "red"]


def test_memory_and_cores_are_found() -> None:
    code = (
        "from icon_classifier.system import memory as m; print(m.memory_limit(), m.usable_cores())"
    )
    limit, cores = map(int, python("-c", code).split())
    assert limit > 2**28
    assert cores == os.cpu_count()


def test_set_up_finds_pythons() -> None:
    code = (
        "import sys; from scripts import environment, prepare, serve; "
        "print(*environment.usable_pythons([sys.executable]))"
    )
    assert python("-c", code).split() == [str(sys.version_info[1])]
