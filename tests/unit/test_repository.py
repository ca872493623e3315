"""Rules for the files of the repository."""

import json
import re
import subprocess
import tomllib

import pytest
import yaml

from scripts.environment import (
    DEV_LINE,
    MINORS,
    ROOT,
    SINGLE_EXTRAS,
    TORCH_PAIR,
    split_blocks,
    tool_requirements,
)
from scripts.lock import SLOW


@pytest.mark.parametrize("name", ["icon_classifier.ipynb", "train.ipynb"])
def test_notebook_is_committed_without_outputs(name: str) -> None:
    cells = json.loads((ROOT / name).read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert not [cell for cell in code if cell["outputs"]]
    assert {cell["execution_count"] for cell in code} == {None}


def test_requirements_pin_every_package_for_hosts() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    options = [line for line in lines if line.startswith("-")]
    packages = [line for line in lines if line and not line.startswith(("#", "-"))]
    assert options == [
        "--extra-index-url https://download.pytorch.org/whl/cpu",
        "--only-binary :all:",
    ]
    assert len(packages) > 100
    assert not [line for line in packages if not re.match(r"[\w.-]+==[\w.]+( ; .+)?$", line)]
    assert not [line for line in packages if re.match(r"nvidia|cuda|triton", line)]


def test_lock_has_the_versions_of_requirements_with_hashes() -> None:
    apart = (*TORCH_PAIR, *SLOW)
    wanted = {
        line.partition(" ;")[0]
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if "==" in line and not line.startswith(tuple(f"{name}==" for name in apart))
    }
    lock, _, tools = (ROOT / "requirements.lock").read_text().partition(f"\n{DEV_LINE}\n")
    hashed = set(re.findall(r"^(\S+==[^\s;]+)[^\n]* \\\n +--hash=sha256:", lock, re.MULTILINE))
    assert wanted <= hashed
    assert {line.partition("==")[0] for line in hashed - wanted} == {"fastbook", "pip"}
    assert "pytest" in split_blocks(tools)
    assert not split_blocks(tools).keys() & split_blocks(lock).keys()


def test_what_slows_a_server_down_is_pinned_on_hosts_but_not_set_up_here() -> None:
    assert not set(SLOW) & split_blocks((ROOT / "requirements.lock").read_text()).keys()
    assert set(SLOW) <= split_blocks((ROOT / "requirements.txt").read_text()).keys()


def test_every_requirement_of_the_project_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras, groups = project["project"]["optional-dependencies"], project["dependency-groups"]
    wanted = [*project["project"]["dependencies"], *extras["train"], *extras["api"]]
    names = {re.split(r"[=<>~]", text)[0] for text in (*wanted, *groups["dev"], *groups["no-deps"])}
    lock = split_blocks((ROOT / "requirements.lock").read_text())
    assert names - set(TORCH_PAIR) <= lock.keys()


def test_every_tool_of_a_target_is_locked_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = {name for name in project["dependency-groups"] if name.startswith("tool-")}
    for name in {*SINGLE_EXTRAS} | {group.removeprefix("tool-") for group in groups}:
        blocks = split_blocks(tool_requirements(name))
        assert blocks
        assert all("--hash=sha256:" in block for block in blocks.values())


def test_nothing_is_installed_or_run_without_a_hash() -> None:
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    recipes = [ROOT / "Makefile", *workflows, *(ROOT / "bench").rglob("*.py")]
    assert not [path for path in recipes if re.search(r"pipx|pip\W+install", path.read_text())]
    actions = re.findall(r"uses: (.*)", "".join(path.read_text() for path in workflows))
    assert actions
    assert not [
        text for text in actions if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", text)
    ]
    images = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert images
    assert not [image for image in images if not re.search(r"@sha256:[0-9a-f]{64}$", image)]
    assert "ignore-scripts=true" in (ROOT / "web" / ".npmrc").read_text()


def test_workflows_may_only_read_the_repository() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}, path
        jobs = {name for name, job in workflow["jobs"].items() if "permissions" in job}
        assert jobs == ({"deploy"} if path.name == "pages.yml" else set()), path


def test_job_that_publishes_may_do_nothing_else_and_runs_nothing_of_the_repository() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text())
    deploy = workflow["jobs"]["deploy"]
    assert deploy["permissions"] == {"pages": "write", "id-token": "write"}
    (step,) = deploy["steps"]
    assert step["uses"].startswith("actions/deploy-pages@")


def test_every_supported_python_is_tested_and_declared() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    versions = [f"3.{minor}" for minor in sorted(MINORS)]
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == versions
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == f">={versions[0]}"


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
    assert max(map(len, listed.splitlines())) <= 80


def test_training_installs_no_browser() -> None:
    commands = subprocess.run(
        ["make", "-n", "train"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert "scripts.prepare &&" in commands  # without --tests
