"""What holds for every file of the repository."""

import ast
import importlib
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def committed(*patterns: str) -> list[Path]:
    """Files under version control, and new ones that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    answer = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for name in answer.stdout.splitlines() if (path := ROOT / name).is_file()]


def texts() -> list[Path]:
    return [path for path in committed() if b"\0" not in path.read_bytes()[:4096]]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


NOTEBOOKS = names(committed("*.ipynb"))
MODULES = names(committed("icon_classifier/*.py", "scripts/*.py"))
EXTRA = {"icon_classifier/scale.py"}
"""Modules that need a package which only `make test-scale` installs; tested there."""


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_committed_without_outputs(name: str) -> None:
    cells = json.loads((ROOT / name).read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert not [cell for cell in code if cell["outputs"]]
    assert {cell["execution_count"] for cell in code} == {None}


# Written in two parts, so that this file does not find itself.
@pytest.mark.parametrize(
    "pattern",
    [
        r"(?<![\w.~-])/(?:work|root|opt/wheels|opt/" + r"pypi)\b",
        r"/home/(?!user\b|jovyan\b)" + r"\w+",
        r"/tmp/" + r"(?:res|uvenv|land|newtree)\b",
    ],
)
def test_no_path_of_a_machine(pattern: str) -> None:
    found = [str(path) for path in texts() if re.search(pattern, path.read_text(errors="replace"))]
    assert not found


@pytest.mark.parametrize(
    "host",
    ["pypi." + "org", "pythonhosted." + "org", "registry." + "npmjs", "deb.debian." + "org"],
)
def test_no_host_of_a_registry(host: str) -> None:
    found = [str(path) for path in texts() if host in path.read_text(errors="replace").lower()]
    assert not found


def test_hosts_get_every_package_pinned() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    options = [line for line in lines if line.startswith("-")]
    packages = [line for line in lines if line and not line.startswith(("#", "-"))]
    assert options == ["--extra-index-url https://download.pytorch.org/whl/cpu"]
    assert len(packages) > 100
    assert not [line for line in packages if not re.match(r"[\w.-]+==[\w.]+( ; .+)?$", line)]
    assert not [line for line in packages if re.match(r"nvidia|cuda|triton", line)]


def test_lock_holds_the_versions_of_requirements_with_hashes() -> None:
    apart = ("torch==", "torchvision==", "rfc3987-syntax==", "lark==")
    wanted = {
        line.partition(" ;")[0]
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if "==" in line and not line.startswith(apart)
    }
    lock = (ROOT / "requirements.lock").read_text()
    hashed = set(re.findall(r"^(\S+==[^\s;]+)[^\n]* \\\n +--hash=sha256:", lock, re.MULTILINE))
    assert wanted <= hashed
    assert {line.partition("==")[0] for line in hashed - wanted} == {"fastbook", "pip"}


def test_test_tools_do_not_move_a_version_of_the_app() -> None:
    tools = set(re.findall(r"^(\S+)==", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE))
    hosts = set(re.findall(r"^(\S+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert "pytest" in tools
    assert not tools & hosts


def test_every_target_is_explained_and_phony() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE))
    explained = set(re.findall(r"^([a-z][\w-]*):[^=\n]*## \S", makefile, re.MULTILINE))
    phony = set(" ".join(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)).split())
    assert targets == explained
    assert targets == phony
    listed = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert targets == set(re.findall(r"^make (\S+)", listed, re.MULTILINE))


@pytest.mark.parametrize(
    "name",
    [name for name in MODULES if not Path(name).name.startswith("__") and name not in EXTRA],
)
def test_exports_are_what_is_public(name: str) -> None:
    module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
    defined = {
        node.name
        for node in ast.parse((ROOT / name).read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        # A command is reached by its name on the command line.
        and not any(".command(" in ast.unparse(item) for item in node.decorator_list)
    }
    assert not [word for word in module.__all__ if not hasattr(module, word)]
    assert not defined - set(module.__all__)
