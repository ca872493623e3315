"""Model files made to do harm: what tests/unit/test_pickles.py and test_model.py do not have."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from icon_classifier.conversion.archive import open_archive
from icon_classifier.errors import ConversionError, ModelDamagedError, ModelError
from icon_classifier.model.session import Model
from tests.hostile import LONG
from tests.support.models import metadata, model_bytes


def changed(change: Callable[[onnx.ModelProto], None]) -> bytes:
    proto = onnx.load_from_string(model_bytes())
    change(proto)
    data: bytes = proto.SerializeToString()
    return data


def dims(*sizes: int) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        del proto.graph.initializer[0].dims[:]
        proto.graph.initializer[0].dims.extend(sizes)

    return change


def foreign(domain: str) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
        proto.graph.node.append(helper.make_node("Evil", ["image"], ["x"], domain=domain))

    return change


def says(text: str) -> Callable[[onnx.ModelProto], None]:
    return lambda proto: helper.set_model_props(proto, {"icon_classifier": text})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(dims(2**20, 2**20), id="a tensor of 4 TB"),
        pytest.param(dims(2**32, 2**32), id="a size that overflows"),
        pytest.param(dims(-1, 3), id="a negative size"),
        pytest.param(foreign("evil.example"), id="a foreign operator"),
        pytest.param(foreign("com.microsoft"), id="a foreign operator of a known house"),
        pytest.param(says("[" * 100_000), id="deep metadata"),
        pytest.param(says('{"format": 1, "mean": ' + "9" * 5000 + "}"), id="a giant number"),
        pytest.param(
            says(json.dumps(metadata(labels=[str(n) for n in range(10**5)]))), id="huge metadata"
        ),
        pytest.param(says(json.dumps(metadata(labels=["a", "b"]))), id="fewer names than classes"),
    ],
)
def test_it_is_refused(change: Callable[[onnx.ModelProto], None]) -> None:
    with pytest.raises(ModelDamagedError):
        Model(changed(change))


def test_what_takes_too_much_to_run_is_an_error_of_ours() -> None:
    """64 GB in the middle of the network: no memory for it, so no answer; nothing else."""

    def change(proto: onnx.ModelProto) -> None:
        graph = proto.graph
        shape = numpy_helper.from_array(np.array([2**18, 2**18], np.int64), "shape")
        one = numpy_helper.from_array(np.ones((1, 1), np.float32), "one")
        graph.initializer.extend([shape, one])
        next(node for node in graph.node if node.op_type == "MatMul").output[0] = "plain"
        graph.node.insert(0, helper.make_node("Expand", ["one", "shape"], ["big"]))
        graph.node.insert(1, helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0))
        add = helper.make_node("Add", ["plain", "sum"], ["logits"])
        graph.node.insert(5, add)

    with pytest.raises(ModelError):
        Model(changed(change)).predict(Image.new("RGB", (32, 32)))


class Ran:
    """Leaves a file where it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (f"open({str(self.canary)!r}, 'w')",)


def packed(path: Path, entries: dict[str, bytes], compress: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


NAMES = ["data.pkl", "../data.pkl", "/data.pkl", "a/b/data.pkl", "a/../data.pkl", "a/DATA.pkl"]


@pytest.mark.parametrize("name", NAMES)
def test_tricks_with_names(tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    path = packed(tmp_path / "export.pkl", {name: pickle.dumps(Ran(canary))})
    with pytest.raises(ConversionError):
        open_archive(path)
    assert not canary.exists()


def test_a_bomb_of_a_pickle(tmp_path: Path) -> None:
    """What is long only when it is unpacked is refused by its head."""
    path = packed(tmp_path / "export.pkl", {"x/data.pkl": bytes(2**27)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ConversionError, match="far too large"):
        open_archive(path)


@LONG
def test_numbers_that_are_not_there(tiny_export: Path, tmp_path: Path) -> None:
    """A head that promises gigabytes, keys that climb out: only what is inside is read."""
    path = tmp_path / "export.pkl"
    shutil.copy(tiny_export, path)
    archive = open_archive(path)
    with archive.numbers() as read:
        for key in ("../../../../etc/passwd", "/etc/passwd", "0\0", "../data.pkl", ""):
            with pytest.raises(ConversionError):
                read(key, 100)
        with pytest.raises(ConversionError):
            read("0", 2**40)


@LONG
def test_a_head_that_lies_about_sizes(tiny_export: Path, tmp_path: Path) -> None:
    data = bytearray(tiny_export.read_bytes())
    place = data.rfind(b"PK\x01\x02")
    struct.pack_into("<II", data, place + 20, 0xFFFFFFF0, 0xFFFFFFF0)  # packed and plain size
    (tmp_path / "export.pkl").write_bytes(data)
    with pytest.raises(ConversionError):
        _read_all(tmp_path / "export.pkl")


def _read_all(path: Path) -> None:
    with open_archive(path).numbers() as read:
        read("0", 0xFFFFFFF0)
