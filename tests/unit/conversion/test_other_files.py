"""Files that are not exports of a Learner are refused, each in a sentence that says what to do."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import helper
from torch import nn

from icon_classifier.conversion.archive import open_archive
from icon_classifier.conversion.learner import read_learner
from icon_classifier.errors import ConversionError, NotAnExportError
from tests.support.models import model_bytes


def saved(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def script() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)
    return file.getvalue()


def zipped(**entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "."), data)
    return file.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


STATE = nn.Linear(2, 2).state_dict()
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "Git LFS": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 46972345\n",
        "a Git LFS pointer, not the model itself; run `git lfs pull`",
    ),
    "empty": (lambda: b"", "an empty file; copy or download it again"),
    "HTML": (lambda: b"\n<!DOCTYPE html>\n<html>", "a web page, not the file that it links to"),
    "text": (lambda: b"404: Not Found", "a text, which begins with '404: Not Found'; call"),
    "notebook": (lambda: b'{"cells": []}', "a text"),
    "text in another script": (lambda: "über\näöü".encode(), r"a text, which begins with 'über\\n"),
    "noise": (lambda: b"\0\1\2\3", "a file of no known kind; call"),
    "bytes that are not UTF-8": (lambda: b"GGUF\xfe\xff", "a file of no known kind; call"),
    "gzip": (lambda: gzip.compress(saved(1)), "a file compressed with gzip; unpack it"),
    "joblib": (lambda: zlib.compress(saved(1), 3), "a file compressed with zlib, as joblib does"),
    "joblib without compression": (
        lambda: b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n\0\0\0",
        "a file of joblib; call",
    ),
    "PNG": (lambda: b"\x89PNG\r\n\x1a\n", "a picture, not a model; call"),
    "JPEG": (lambda: b"\xff\xd8\xff\xe0", "a picture, not a model; call"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n", "a file of HDF5, as Keras writes"),
    "Keras": (lambda: zipped(config__json=b"", model__weights__h5=b""), "a model of Keras"),
    "safetensors": (safetensors, "a file of safetensors"),
    "ONNX": (model_bytes, "an ONNX model"),
    "ONNX without a producer": (
        lambda: helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString(),
        "an ONNX model",
    ),
    "TensorFlow Lite": (lambda: b"\x20\0\0\0TFL3", "a model of TensorFlow Lite"),
    "a zip with export.pkl": (
        lambda: zipped(export__pkl=saved(1)),
        r"a zip with 'export\.pkl' in it; unpack it",
    ),
    "another zip": (lambda: zipped(a__txt=b"a"), "a zip without a model"),
    "TorchScript": (script, "a network of TorchScript, without labels"),
    "learn.save": (
        lambda: saved({"model": STATE, "opt": {"state": []}}),
        r"weights that learn\.save\(\) wrote, .*; call learn\.export\(\) in the notebook",
    ),
    "state dict": (lambda: saved(STATE), r"weights alone \(a state_dict\), without labels"),
    "old state dict": (
        lambda: saved(STATE, _use_new_zipfile_serialization=False),
        r"weights alone \(a state_dict\), without labels",
    ),
    "checkpoint": (lambda: saved({"epoch": 3, "state_dict": STATE}), "a checkpoint of weights"),
    "one byte": (lambda: b"\x08", "a file of no known kind"),
    "Lightning": (
        lambda: saved({"pytorch-lightning_version": "2.4.0", "state_dict": STATE}),
        "a checkpoint of Lightning",
    ),
    "fastai 1": (
        lambda: saved({"cls": 1, "model": nn.Linear(2, 2), "data": 2}),
        "an export of fastai 1; train it again with fastai 2",
    ),
    "network": (lambda: saved(nn.Sequential(nn.Linear(2, 2))), "a network alone, without labels"),
    "dict": (
        lambda: pickle.dumps({"a": 1}),
        r"a pickle, but not of a Learner \(\{'a': 1\}\)",
    ),
    "another object": (
        lambda: pickle.dumps(Path("a")),
        r"a pickle, but not of a Learner \(pathlib\.PosixPath\)",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_named(tmp_path, name):
    content, sentence = FILES[name]
    path = tmp_path / "export.pkl"
    path.write_bytes(content())
    with pytest.raises(
        NotAnExportError, match=f"expected an export of a fastai Learner, got {sentence}"
    ):
        read_learner(open_archive(path))


def test_a_folder_is_named(tmp_path):
    with pytest.raises(NotAnExportError, match="got a folder; give the path of the export"):
        open_archive(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConversionError, match=r"cannot read .*export\.pkl: No such file"):
        open_archive(tmp_path / "export.pkl")


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(tmp_path, old, kept):
    data = saved(STATE, _use_new_zipfile_serialization=not old)
    path = tmp_path / "export.pkl"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ConversionError, match=r"cut off|damaged|bytes in the storage"):
        _read_tensors(path)


def _read_tensors(path: Path) -> None:
    opened = open_archive(path)
    with opened.open_storages() as read:
        for tensor in opened.root.values():
            read(tensor.args[0].key, 4 * tensor.args[0].numel)
