"""The smoke test against a running page, and against what is none."""

import asyncio
import http.server
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from icon_classifier.cli.main import app
from icon_classifier.cli.smoke import example_photo, smoke, visiting
from icon_classifier.errors import DeploymentError
from icon_classifier.page.texts import WORKING
from icon_classifier.server.visitor import Visit
from tests.support.models import write_model
from tests.support.servers import ROOT, Server, free_port, project_copy, voila

METRICS = free_port()


@pytest.fixture(scope="module")
def page() -> Iterator[Server]:
    with voila(ROOT, f"--VisitorKernelManager.metrics_port={METRICS}") as server:
        yield server


@pytest.fixture
def other_site(tmp_path: Path) -> Iterator[str]:
    """A web server that is not ours."""
    (tmp_path / "index.html").write_text("<h1>Welcome</h1>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("project_model")
def test_smoke_test_predicts_grizzly_and_shuts_the_kernel_down(page: Server) -> None:
    report = smoke(page.url, label="grizzly")
    assert report.label == "grizzly"
    assert 0.5 < report.probability <= 1
    assert 0 < report.answer_seconds < 60
    assert str(report).startswith(f"{page.url}: grizzly (")
    assert "Kernel shutdown: " in page.text


@pytest.mark.usefixtures("project_model")
def test_log_of_a_visit_has_no_warning(page: Server) -> None:
    smoke(page.url)
    assert not page.warnings


@pytest.mark.usefixtures("project_model")
def test_log_of_a_page_that_is_left_while_it_works_has_no_warning(page: Server) -> None:
    async def leave() -> None:
        async with await Visit.open(page.url) as visit:
            await visit.load_widgets()
            await visit.choose(example_photo().read_bytes())
            await visit.click()
            content: dict[str, Any] = {}
            while content.get("data", {}).get("state", {}).get("description") != WORKING:
                content = (await visit.receive()).content
            await visit.leave()

    asyncio.run(leave())
    assert not page.warnings


def predictions() -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=60) as answer:
        found = re.search(rb"^icon_classifier_predictions_total (.+)$", answer.read(), re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.mark.usefixtures("project_model")
def test_predictions_are_counted(page: Server) -> None:
    before = predictions()
    smoke(page.url)
    smoke(page.url)
    assert predictions() == before + 2


@pytest.mark.usefixtures("project_model")
async def test_kernel_lives_until_the_visit_ends(page: Server) -> None:
    before = page.text.count("Kernel shutdown: ")
    async with visiting(page.url, example_photo()) as report:
        assert report.label == "grizzly"
        assert page.text.count("Kernel shutdown: ") == before
    assert page.text.count("Kernel shutdown: ") == before + 1


@pytest.mark.usefixtures("project_model")
async def test_kernel_is_shut_down_after_an_error(page: Server) -> None:
    before = page.text.count("Kernel shutdown: ")
    with pytest.raises(ZeroDivisionError):
        async with visiting(page.url, example_photo()):
            raise ZeroDivisionError
    assert page.text.count("Kernel shutdown: ") == before + 1


@pytest.mark.usefixtures("project_model")
def test_smoke_test_fails_on_another_label(page: Server) -> None:
    with pytest.raises(DeploymentError, match="expected 'cat', got 'grizzly'"):
        smoke(page.url, label="cat")


def test_smoke_test_of_other_classes_expects_no_label_unless_one_is_given(tmp_path: Path) -> None:
    write_model(project_copy(tmp_path), unsure={"score": "energy", "threshold": 1000.0})
    with voila(tmp_path) as page:
        assert smoke(page.url).label.startswith("not sure, closest: ")
        with pytest.raises(DeploymentError, match="expected 'red', got 'not sure, closest: "):
            smoke(page.url, label="red")


@pytest.mark.usefixtures("project_model")
def test_smoke_test_fails_on_a_photo_that_cannot_be_read(page: Server, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_text("no photo")
    with pytest.raises(DeploymentError, match="expected a prediction, got 'This file is"):
        smoke(page.url, photo)


def test_smoke_test_fails_on_another_site(other_site: str) -> None:
    with pytest.raises(DeploymentError, match="is not a page of this app"):
        smoke(other_site)


def test_smoke_test_fails_on_a_missing_page(other_site: str) -> None:
    with pytest.raises(DeploymentError, match="answered 404"):
        smoke(f"{other_site}nothing")


def test_smoke_test_fails_on_an_unreachable_server() -> None:
    with pytest.raises(DeploymentError, match="cannot be reached"):
        smoke(f"http://127.0.0.1:{free_port()}/")


async def test_visit_of_a_server_that_gives_no_answer_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(DeploymentError, match=f"{address} gave no answer: Timeout"):
            await Visit.open(address, seconds=0.2)


def test_smoke_test_fails_on_an_address_without_a_scheme() -> None:
    with pytest.raises(DeploymentError, match="http://"):
        smoke("localhost:8866")


def test_smoke_test_fails_on_a_missing_photo(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="cannot read"):
        smoke("http://localhost:8866/", tmp_path / "missing.jpg")


def test_example_photo_is_from_fastbook() -> None:
    assert example_photo().name == "grizzly.jpg"


def test_smoke_command_prints_a_report_or_raises(page: Server) -> None:
    runner = CliRunner()
    good = runner.invoke(app, ["smoke", page.url])
    assert good.exit_code == 0
    assert "grizzly" in good.stdout
    bad = runner.invoke(app, ["smoke", page.url, "--label", "teddy"])
    assert isinstance(bad.exception, DeploymentError)
