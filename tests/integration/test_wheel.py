"""The built wheel, installed into a fresh environment, serves a folder with three files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import urlopen

import pytest
from PIL import Image

from icon_classifier.server.visitor import Visit
from tests.support.models import write_model
from tests.support.pictures import encode
from tests.support.servers import NOTEBOOK, ROOT, Server, free_port, project_copy, running

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "icon_classifier", "recipes")


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and a working folder outside of the repository."""

    root: Path
    folder: Path

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment in the folder; return what it prints."""
        command = ["env", "-u", "PYTHONPATH", self.root / "bin" / program, *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


def build_wheel(folder: Path) -> Path:
    """Build the wheel from a copy: the repository's own build/ may hold files of yesterday."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment with the wheel; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    root = folder / "venv"
    venv.create(root, with_pip=False)
    paths = sysconfig.get_paths(vars={"base": str(root), "platbase": str(root)})
    # A line of a .pth file does not follow the .pth files there, so the repository, which is
    # installed there as a link, is not visible.
    (Path(paths["purelib"]) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    (root / "share").mkdir()
    (root / "share" / "jupyter").symlink_to(Path(sysconfig.get_path("data"), "share", "jupyter"))
    pip = [sys.executable, "-m", "pip", "--python", root, "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", build_wheel(folder)], check=True)
    served = folder / "served"
    served.mkdir()
    write_model(project_copy(served))
    assert {path.name for path in served.iterdir()} == {NOTEBOOK, "voila.json", "export.onnx"}
    return Environment(root, served)


@pytest.fixture(scope="module")
def server(environment: Environment) -> Iterator[Server]:
    port = free_port()
    python = str(environment.root / "bin" / "python")
    # `running` points PYTHONPATH at the repository.
    command = ["-u", "PYTHONPATH", python, "-m", "voila", NOTEBOOK, f"--port={port}"]
    options = ["--Voila.port_retries=0", "--no-browser"]
    with running(
        [*command, *options],
        port=port,
        ready="voila/static/",
        cwd=environment.folder,
        python="env",
    ) as server:
        yield server


def test_package_is_the_one_of_the_wheel(environment: Environment) -> None:
    code = "import icon_classifier; print(icon_classifier.__file__)"
    path = Path(environment.run("python", "-c", code).strip())
    assert path.is_relative_to(environment.root)


async def test_page_is_the_slim_one_and_answers(server: Server) -> None:
    async with await Visit.open(server.url) as visit:
        files = re.findall(r'"(/voila/static/[^"]+-\w{8}\.(?:js|css))"', visit.html)
        assert {Path(file).suffix for file in files} == {".js", ".css"}
        for file in files:
            with urlopen(urljoin(server.url, file), timeout=60) as response:
                assert response.status == 200
                assert len(response.read()) > 10_000
        said = await visit.classify(encode(Image.new("RGB", (40, 30), "red"), "PNG"))
        assert said.startswith("Prediction: red;")
    assert "Kernels are forked from process" in server.text


def test_jupyters_server_loads_the_extension(environment: Environment) -> None:
    listed = environment.run("python", "-m", "jupyter_server", "extension", "list")
    for word in ("enabled", "OK"):
        assert re.search(rf"icon_classifier\.server\.extension\s.*{word}", listed)


def test_recipes_are_found_by_name(environment: Environment) -> None:
    code = (
        "from icon_classifier.dataset.recipes import load_recipe, recipe_names\n"
        "print(load_recipe('bears').labels, recipe_names())"
    )
    printed = environment.run("python", "-c", code)
    names = sorted(path.stem for path in (ROOT / "recipes").glob("*.toml"))
    assert printed == f"('black', 'grizzly', 'teddy') {names}\n"


def test_command_line_predicts(environment: Environment) -> None:
    photo = environment.folder.parent / "photo.png"
    photo.write_bytes(encode(Image.new("RGB", (40, 30), "blue"), "PNG"))
    assert "blue" in environment.run("icon-classifier", "predict", str(photo))


def test_wheel_has_all_files_of_the_static_site(environment: Environment) -> None:
    environment.run("icon-classifier", "site", "../site", "--exact")
    names = {path.name.split("-")[0] for path in (environment.folder.parent / "site").iterdir()}
    assert names == {
        *("index.html", "sw.js", "manifest.webmanifest", "LICENSES.txt", "style", "icon"),
        *("site", "worker", "dropzone", "answer", "export", "ort", "heif"),
    }
