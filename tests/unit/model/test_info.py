import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icon_classifier.errors import ModelDamagedError, ModelMissingError
from icon_classifier.model.info import ModelInfo, read_labels, read_metadata
from icon_classifier.model.session import Model
from tests.support.models import metadata, model_bytes, write_model


def test_valid_metadata_is_parsed() -> None:
    info = ModelInfo.from_json(json.dumps(metadata()))
    assert info.labels == ("red", "green", "blue")
    assert info.mean.dtype == np.float32
    assert (info.score, info.threshold) == ("energy", 2.0)
    assert info.recipe == "colours"


@pytest.mark.parametrize("statistics", [[0.5], [0.5, 0.25, 0.125]])
def test_grey_photos_have_one_statistic_or_three(statistics: list[float]) -> None:
    info = ModelInfo.from_json(json.dumps(metadata(mode="L", mean=statistics, std=statistics)))
    assert (info.mode, info.mean.tolist(), info.std.tolist()) == ("L", statistics, statistics)


def test_metadata_without_a_mode_is_of_colour_photos() -> None:
    assert "mode" not in metadata()
    assert ModelInfo.from_json(json.dumps(metadata())).mode == "RGB"


def test_without_unsure_there_is_no_score_and_no_threshold() -> None:
    info = ModelInfo.from_json(json.dumps(metadata(unsure=None)))
    assert (info.score, info.threshold) == (None, None)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_metadata_that_is_not_an_object_is_refused(text: str) -> None:
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
        {"mode": "CMYK"},
        {"mode": ["L"]},
        {"mode": "L", "mean": [0.5, 0.5]},
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
def test_an_invalid_entry_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelDamagedError):
        ModelInfo.from_json(json.dumps(metadata(**changes)))


@pytest.mark.parametrize("key", ["labels", "transforms", "mean", "temperature", "export_sha256"])
def test_a_missing_entry_is_named(key: str) -> None:
    entries = metadata()
    del entries[key]
    with pytest.raises(ModelDamagedError, match=key):
        ModelInfo.from_json(json.dumps(entries))


@pytest.mark.parametrize("key", ["compiler_sha256", "date", "recipe", "versions", "figures"])
def test_metadata_of_older_versions_may_lack_an_entry(key: str) -> None:
    entries = metadata()
    del entries[key]
    assert ModelInfo.from_json(json.dumps(entries)).labels == ("red", "green", "blue")


def test_a_number_that_is_not_finite_is_refused() -> None:
    text = json.dumps(metadata()).replace('"temperature": 1.0', '"temperature": NaN')
    with pytest.raises(ModelDamagedError, match="temperature"):
        ModelInfo.from_json(text)


@pytest.mark.parametrize("classes", [1, 100, 3000])
def test_read_metadata_returns_what_onnx_runtime_reads(tmp_path: Path, classes: int) -> None:
    """The more classes, the more bytes hold the length of the entry."""
    labels = [f"bär {number}" for number in range(classes)]
    path = tmp_path / "export.onnx"
    path.write_bytes(model_bytes(labels=["a", "b", "c"], recipe=" ".join(labels)))
    assert read_metadata(path) == Model.load(path).info.raw


def test_read_metadata_imports_no_library(tmp_path: Path) -> None:
    code = (
        "import sys; from icon_classifier.model.opening import is_up_to_date\n"
        "assert is_up_to_date(sys.argv[1], 'no export')\n"
        "assert not {'numpy', 'onnxruntime', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, write_model(tmp_path)], check=True)


def test_read_metadata_of_a_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"export\.onnx"):
        read_metadata(tmp_path / "export.onnx")


def test_file_cut_at_any_byte_is_damaged(tmp_path: Path) -> None:
    data, path = model_bytes(), tmp_path / "export.onnx"
    entry = data.rfind(b"icon_classifier")
    for end in [*range(0, entry, 37), *range(entry, len(data))]:
        path.write_bytes(data[:end])
        for read in (read_metadata, read_labels, *([Model.load] if end % 37 == 0 else [])):
            with pytest.raises(ModelDamagedError):
                read(path)


def deep(levels: int) -> list[Any]:
    """Nest so many lists."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(sorted(metadata())), JSON | st.sampled_from([deep(300), deep(900), "\ud800"])
)
def test_whatever_an_entry_holds_it_is_read_or_damaged(name: str, value: Any) -> None:
    text = json.dumps(metadata(**{name: value}))
    try:
        info = ModelInfo.from_json(text)
    except ModelDamagedError:
        return
    json.dumps(
        [info.labels, info.recipe, info.date, info.export_sha256], ensure_ascii=False
    ).encode()


@pytest.mark.parametrize("labels", [5, {}, {"a": 1}, [5], [deep(900)], None, ["\ud800"], []])
def test_labels_that_are_no_names_are_damaged(tmp_path: Path, labels: object) -> None:
    path = tmp_path / "export.onnx"
    path.write_bytes(model_bytes(labels=labels))
    with pytest.raises(ModelDamagedError):
        read_labels(path)
    with pytest.raises(ModelDamagedError):
        Model.load(path)
