"""Crafted model files, beside those of tests/unit/conversion/test_archive.py."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image

from icon_classifier.conversion.archive import open_archive
from icon_classifier.conversion.learner import read_learner
from icon_classifier.errors import ConversionError, ModelDamagedError, ModelError
from icon_classifier.model.session import Model
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


def with_metadata(text: str) -> Callable[[onnx.ModelProto], None]:
    return lambda proto: helper.set_model_props(proto, {"icon_classifier": text})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(dims(2**20, 2**20), id="a tensor of 4 TB"),
        pytest.param(dims(2**32, 2**32), id="a size that overflows"),
        pytest.param(dims(-1, 3), id="a negative size"),
        pytest.param(foreign("evil.example"), id="an operator of an unknown domain"),
        pytest.param(foreign("com.microsoft"), id="an unknown operator of a known domain"),
        pytest.param(with_metadata("[" * 100_000), id="deep metadata"),
        pytest.param(
            with_metadata('{"format": 1, "mean": ' + "9" * 5000 + "}"), id="a number of 5000 digits"
        ),
        pytest.param(
            with_metadata(json.dumps(metadata(labels=[str(n) for n in range(10**5)]))),
            id="huge metadata",
        ),
        pytest.param(
            with_metadata(json.dumps(metadata(labels=["a", "b"]))), id="fewer labels than logits"
        ),
    ],
)
def test_a_crafted_onnx_file_is_refused(change: Callable[[onnx.ModelProto], None]) -> None:
    with pytest.raises(ModelDamagedError):
        Model(changed(change))


def test_a_network_that_needs_64_gb_raises_a_model_error() -> None:

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


class WritesCanary:
    """Writes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (f"open({str(self.canary)!r}, 'w')",)


def zipped(path: Path, entries: dict[str, bytes], compress: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


ENTRY_NAMES = [
    "data.pkl",
    "../data.pkl",
    "/data.pkl",
    "a/b/data.pkl",
    "a/../data.pkl",
    "a/DATA.pkl",
]


@pytest.mark.parametrize("name", ENTRY_NAMES)
def test_a_crafted_pickle_under_any_entry_name_is_refused(tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    path = zipped(tmp_path / "export.pkl", {name: pickle.dumps(WritesCanary(canary))})
    with pytest.raises(ConversionError):
        read_learner(open_archive(path))
    assert not canary.exists()


def test_a_pickle_that_is_large_only_when_decompressed_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "export.pkl", {"x/data.pkl": bytes(2**27)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ConversionError, match="larger than 24 MB"):
        open_archive(path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Write a file of torch.save with one tensor."""
    path = tmp_path / "export.pkl"
    torch.save(torch.ones(25), path)
    return path


@pytest.mark.parametrize("key", ["../../../../etc/passwd", "/etc/passwd", "0\0", "../data.pkl", ""])
def test_a_storage_outside_the_archive_is_not_read(saved: Path, key: str) -> None:
    with open_archive(saved).open_storages() as read, pytest.raises(ConversionError):
        read(key, 100)


def test_a_storage_larger_than_the_archive_is_not_read(saved: Path) -> None:
    with open_archive(saved).open_storages() as read, pytest.raises(ConversionError):
        read("0", 2**40)


def test_a_zip_directory_with_false_sizes_is_refused(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    entry = data.rfind(b"PK\x01\x02")
    struct.pack_into("<II", data, entry + 20, 0xFFFFFFF0, 0xFFFFFFF0)  # compressed, plain size
    saved.write_bytes(data)
    with pytest.raises(ConversionError):
        _read_storage(saved)


def _read_storage(path: Path) -> None:
    with open_archive(path).open_storages() as read:
        read("0", 0xFFFFFFF0)
