"""Fixtures that are dear: made once, shared, never changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import learners


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small pictures of three colours."""
    return learners.draw_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def tiny_export(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export.pkl of a tiny network; copy it to change it."""
    learn = learners.make_learner(photos)
    return learners.export(learn, tmp_path_factory.mktemp("tiny"))
