"""The smoke test against a running page, and against what is none."""

import http.server
import re
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icon_classifier.cli.main import app
from icon_classifier.errors import DeploymentError
from icon_classifier.server.visitor import example_photo, smoke, visiting
from tests.support.servers import ROOT, Server, free_port, voila

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
def test_smoke_sees_the_grizzly_and_frees_the_kernel(page: Server) -> None:
    report = smoke(page.url)
    assert report.label == "grizzly"
    assert 0.5 < report.probability <= 1
    assert 0 < report.answer_seconds < 60
    assert str(report).startswith(f"{page.url}: grizzly (")
    assert "Kernel shutdown: " in page.text


def predictions() -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=10) as answer:
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
async def test_visitor_keeps_his_kernel_as_long_as_he_stays(page: Server) -> None:
    before = page.text.count("Kernel shutdown: ")
    async with visiting(page.url, example_photo()) as report:
        assert report.label == "grizzly"
        assert page.text.count("Kernel shutdown: ") == before
    assert page.text.count("Kernel shutdown: ") == before + 1


@pytest.mark.usefixtures("project_model")
async def test_visitor_leaves_when_something_goes_wrong(page: Server) -> None:
    before = page.text.count("Kernel shutdown: ")
    with pytest.raises(ZeroDivisionError):
        async with visiting(page.url, example_photo()):
            raise ZeroDivisionError
    assert page.text.count("Kernel shutdown: ") == before + 1


@pytest.mark.usefixtures("project_model")
def test_wrong_label_fails(page: Server) -> None:
    with pytest.raises(DeploymentError, match="expected 'cat', got 'grizzly'"):
        smoke(page.url, label="cat")


@pytest.mark.usefixtures("project_model")
def test_page_that_cannot_read_the_photo_predicts_nothing(page: Server, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_text("no photo")
    with pytest.raises(DeploymentError, match="expected a prediction, got 'This file is"):
        smoke(page.url, photo)


def test_other_site_is_told_from_ours(other_site: str) -> None:
    with pytest.raises(DeploymentError, match="is no page of this app"):
        smoke(other_site)


def test_missing_page_is_told(other_site: str) -> None:
    with pytest.raises(DeploymentError, match="answered 404"):
        smoke(f"{other_site}nothing")


def test_unreachable_server_is_told() -> None:
    with pytest.raises(DeploymentError, match="cannot be reached"):
        smoke(f"http://127.0.0.1:{free_port()}/")


def test_example_is_fastbooks() -> None:
    assert example_photo().name == "grizzly.jpg"


def test_command_prints_the_report_and_fails_with_one(page: Server) -> None:
    runner = CliRunner()
    good = runner.invoke(app, ["smoke", page.url])
    assert good.exit_code == 0
    assert "grizzly" in good.stdout
    bad = runner.invoke(app, ["smoke", page.url, "--label", "teddy"])
    assert isinstance(bad.exception, DeploymentError)
