"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from icon_classifier.cli.smoke import example_photo
from icon_classifier.model.opening import open_model
from icon_classifier.model.session import Model
from icon_classifier.page.examples import fastbook_photo
from tests.support.models import write_model
from tests.support.servers import ROOT, Server, project_copy, voila

# An example may take longer than Hypothesis's 0.2 s where the machine is busy.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files of unit tests, which compute, among the others, which often wait.

    So the workers of `make test` keep the cores busy, and end together with short files.
    """
    unit = ROOT / "tests" / "unit"
    files = list(dict.fromkeys(item.path for item in items))
    quick = [path for path in files if unit in path.parents]
    slow = [path for path in files if unit not in path.parents]
    place = {path: index / len(quick) for index, path in enumerate(quick)}
    place |= {path: 0.8 * index / len(slow) for index, path in enumerate(slow)}
    items.sort(key=lambda item: place[item.path])


@pytest.fixture(scope="session")
def project_model() -> Model:
    """The shipped model, compiled if that was not done yet."""
    return open_model(ROOT)


@pytest.fixture(scope="module")
def colour_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Voilà with a model of three colours: another export needs no edit of the notebook."""
    folder = project_copy(tmp_path_factory.mktemp("colours"))
    write_model(folder)
    with voila(folder) as server:
        yield server


@pytest.fixture(scope="session")
def grizzly() -> Path:
    return example_photo()


@pytest.fixture(scope="session")
def cat() -> Path:
    path = fastbook_photo("cat.jpg")
    assert path is not None, "fastbook is not installed: run make test"
    return path
