import json
from typing import Any

import numpy as np
import pytest

from icon_classifier.errors import ModelDamagedError
from icon_classifier.model.info import ModelInfo
from tests.support.models import metadata


def test_good() -> None:
    info = ModelInfo.from_json(json.dumps(metadata()))
    assert info.labels == ("red", "green", "blue")
    assert info.mean.dtype == np.float32
    assert (info.score, info.threshold) == ("energy", 2.0)
    assert info.recipe == "colours"


def test_never_unsure() -> None:
    info = ModelInfo.from_json(json.dumps(metadata(unsure=None)))
    assert (info.score, info.threshold) == (None, None)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_no_object(text: str) -> None:
    with pytest.raises(ModelDamagedError):
        ModelInfo.from_json(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": None},
        {"labels": []},
        {"labels": "red"},
        {"labels": ["red", 3]},
        {"labels": ["red", "red"]},
        {"transforms": [{"op": "exec"}]},
        {"transforms": 3},
        {"mean": [0.5]},
        {"mean": [0.5, 0.5, "0.5"]},
        {"std": [0.5, 0.5, 0]},
        {"temperature": 0},
        {"temperature": True},
        {"temperature": "warm"},
        {"unsure": {"score": "energy"}},
        {"unsure": {"score": "energy", "threshold": None}},
        {"unsure": 3},
        {"versions": 3},
    ],
    ids=str,
)
def test_bad(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelDamagedError):
        ModelInfo.from_json(json.dumps(metadata(**changes)))


@pytest.mark.parametrize("key", ["labels", "transforms", "mean", "temperature", "export_sha256"])
def test_missing(key: str) -> None:
    entries = metadata()
    del entries[key]
    with pytest.raises(ModelDamagedError, match=key):
        ModelInfo.from_json(json.dumps(entries))


def test_not_finite() -> None:
    text = json.dumps(metadata()).replace('"temperature": 1.0', '"temperature": NaN')
    with pytest.raises(ModelDamagedError, match="temperature"):
        ModelInfo.from_json(text)
