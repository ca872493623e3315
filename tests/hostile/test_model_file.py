"""Crafted model files, beside those of tests/unit/conversion/test_archive.py."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image

from icon_classifier.conversion.archive import MAGIC_NUMBER, Archive, open_archive
from icon_classifier.conversion.fields import class_name
from icon_classifier.conversion.learner import read_learner
from icon_classifier.conversion.network import Placeholder, build_network
from icon_classifier.conversion.unpickler import MAX_NAME, Global, Object, shorten
from icon_classifier.errors import (
    ConversionError,
    ImageTooLargeError,
    ModelDamagedError,
    ModelError,
)
from icon_classifier.model.session import Model
from tests.hostile import LONG
from tests.support.models import metadata, model_bytes
from tests.support.processes import allocating_less_than
from tests.support.servers import ROOT


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


def test_metadata_has_a_limit() -> None:
    with pytest.raises(ModelDamagedError, match="expected at most 1048576 characters"):
        Model(changed(with_metadata(json.dumps(metadata(recipe="x" * 2**20)))))


def test_a_network_that_needs_64_gb_raises_an_error_of_ours() -> None:

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

    with pytest.raises((ModelError, ImageTooLargeError)):
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
    with pytest.raises(ConversionError, match="larger than 20 MB"):
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


def name(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


TUPLE = b")q\0" + b"".join(b"0h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
"""A tuple that holds another one twice, which holds another one twice, and so on: 2**60 parts."""


def repeated(first: bytes, again: bytes, times: int = 200_000) -> bytes:
    """Return a list of what opcodes make again and again from a value, which is memo entry 0."""
    return b"\x80\x02" + first + b"q\x000(" + again * times + b"l."


COLLIDING = b"".join(
    b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"N" for n in range(10, 100_000)
)
"""Keys that all have the hash 0, with values."""

NESTED = {
    "a nested tuple as a key": b"\x80\x02}" + TUPLE + b"Ns.",
    "a nested tuple in a set": b"\x80\x04\x8f(" + TUPLE + b"\x90.",
    "a nested tuple in a frozenset": b"\x80\x04(" + TUPLE + b"\x91.",
    "a nested tuple in a call of set": (
        b"\x80\x02" + name("builtins", "set") + b"](" + TUPLE + b"e\x85R."
    ),
    "a nested tuple that is called": b"\x80\x02" + TUPLE + b")R.",
    "a nested tuple that is filled": b"\x80\x02" + TUPLE + b"Na.",
    "a nested tuple as a reference": b"\x80\x02" + TUPLE + b"Q.",
    "a nested tuple as the whole": b"\x80\x02" + TUPLE + b".",
    "a nested tuple in an OrderedDict": (
        b"\x80\x02" + name("collections", "OrderedDict") + b")R" + TUPLE + b"Ns."
    ),
    "a nested tuple as a value of an OrderedDict": (
        b"\x80\x02" + name("collections", "OrderedDict") + b")RN" + TUPLE + b"s."
    ),
    "copies of the top": b"\x80\x02)" + b"2\x86" * 60 + b".",
    "a length that is false": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "a far memo entry": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a module of 1 MB": b"\x80\x02" + name("torch." + "a." * 500_000, "x") + b".",
    "a class of 1 MB": b"\x80\x02" + name("x", "a" * 1_000_000) + b".",
}
LARGE = {
    "many dicts": b"\x80\x02(" + b"}" * 20_000_000 + b"t.",
    "many objects": b"\x80\x02" + repeated(name("a", "b"), b"h\0)R", 5_000_000)[2:],
    "many marks": b"\x80\x02" + b"(" * 20_000_000 + b".",
    "many memo entries": b"\x80\x04N" + b"\x94" * 20_000_000 + b".",
    "deep lists": b"\x80\x02" + b"]" * 700_000 + b"a" * 699_999 + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * 1_400_000 + b".",
    "deep calls": b"\x80\x02" + name("a", "b") + b")\x85R" * 10 + b")R" * 600_000 + b".",
    "keys of one hash": b"\x80\x02}(" + COLLIDING + b"u.",
    "a long text": b"\x80\x02" + text("\U0001f600" + "a" * 19_000_000) + b".",
    "bytes of one text": repeated(
        text("a" * 1_000_000), name("_codecs", "encode") + b"h\0" + text("latin1") + b"\x86R"
    ),
    "sets of one list": repeated(
        b"](" + b"K\1" * 100_000 + b"e", name("builtins", "set") + b"h\0\x85R"
    ),
    "digits": b"\x80\x02I" + b"9" * 5_000_000 + b"\n.",
    "long bytes": b"\x80\x03B" + struct.pack("<I", 19_000_000) + b"\xff" * 19_000_000 + b".",
}

READ_ALL = """
import json, sys, time
from pathlib import Path
from icon_classifier.conversion.archive import open_archive
from icon_classifier.conversion.learner import read_learner
from icon_classifier.errors import MAX_MESSAGE, ConversionError

for path in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    try:
        read_learner(open_archive(path))
    except ConversionError as error:
        assert len(str(error)) <= MAX_MESSAGE, path.name
    else:
        print("read", path.name)
    if time.process_time() - start > 2:
        print(f"{time.process_time() - start:.1f} s of CPU time for", path.name)
for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmHWM") and int(line.split()[1]) > 200 * 1024:
        print(line)
"""


@pytest.mark.parametrize(
    "bombs", [NESTED, pytest.param(LARGE, marks=LONG)], ids=["nested", "large"]
)
def test_pickles_that_seem_endless_are_refused_within_2_s_and_200_mb(
    tmp_path: Path, bombs: dict[str, bytes]
) -> None:
    for bomb, program in bombs.items():
        zipped(tmp_path / f"{bomb}.zip", {"x/data.pkl": program})
        (tmp_path / f"{bomb}.pkl").write_bytes(program)
    command = [sys.executable, "-c", READ_ALL, tmp_path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert not done.stdout


def test_archive_of_too_many_entries_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "export.pkl"
    path.write_bytes(b"PK\3\4" + b"PK\1\2" * 100_001 + b"PK\5\6" + bytes(18))
    with pytest.raises(ConversionError, match="more than 100,000 entries"):
        open_archive(path)


def test_tensors_that_are_larger_than_their_file_have_a_limit(tmp_path: Path) -> None:
    zeros = bytes(4_000_000)
    path = tmp_path / "export.pkl"
    zipped(path, {"x/data.pkl": b"\x80\x02N.", "x/data/0": zeros}, zipfile.ZIP_DEFLATED)
    with (
        open_archive(path).open_storages() as read,
        pytest.raises(ConversionError, match="expected at most 10 times the bytes of the file"),
    ):
        read("0", len(zeros))


@pytest.mark.parametrize(
    ("size", "stride"), [((10**5, 10**5), (0, 0)), ((26,), (0,)), ((1,) * 5000, (1,) * 5000)]
)
def test_a_tensor_larger_than_its_storage_is_refused(
    saved: Path, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    archive = open_archive(saved)
    archive.root.args = (archive.root.args[0], 0, size, stride)
    layer = Object(Global("torch.nn.modules.linear", "Linear"), (), {"weight": archive.root})
    with pytest.raises(ConversionError, match="more elements than its storage"):
        build_network(layer, archive)


def test_tensors_that_share_a_storage_have_a_limit_together(saved: Path) -> None:
    archive = open_archive(saved)
    copies = [Object(archive.root.call, archive.root.args) for _ in range(5)]
    layer = Object(Global("torch.nn.modules.linear", "Linear"), (), {"weights": copies})
    with pytest.raises(ConversionError, match="more elements than its storage"):
        build_network(layer, archive)


def test_a_tuple_of_a_layer_is_built_once(saved: Path) -> None:
    nested: tuple[Any, ...] = ()
    for _ in range(60):
        nested = (nested, nested)
    state = {"nested": nested, "_parameters": {}, "_buffers": {}, "_modules": {}}
    layer = Object(Global("torch.nn.modules.linear", "Identity"), (), state)
    assert build_network(layer, open_archive(saved)).nested[0] is not None


def test_name_of_more_than_200_characters_is_refused(tmp_path: Path) -> None:
    for module, function in (("a" * 201, "b"), ("a", "b" * 201)):
        path = zipped(
            tmp_path / "export.pkl", {"x/data.pkl": b"\x80\x02" + name(module, function) + b"."}
        )
        with pytest.raises(ConversionError, match="names of at most 200 characters"):
            open_archive(path)


CODE = Global("cloudpickle.cloudpickle", "_make_function")
LONG_NAME = "n" * 2**20
NAMED = {
    "function of cloudpickle": Object(CODE, state=({}, {"__name__": LONG_NAME})),
    "module of cloudpickle": Object(CODE, state=({}, {"__name__": "f", "__module__": LONG_NAME})),
    "function of dill": Object(
        Global("dill._dill", "_create_function"), (None, Global("m", "__dict__"), LONG_NAME)
    ),
    "class of dill": Object(Global("dill._dill", "_create_type"), (None, LONG_NAME)),
    "object of such a class": Object(
        Object(Global("cloudpickle.cloudpickle", "_make_skeleton_class"), (None, LONG_NAME))
    ),
    "method": Object(Global("builtins", "getattr"), (Global("m", "C"), LONG_NAME)),
}


@pytest.mark.parametrize("form", NAMED)
def test_name_stored_by_value_is_cut(form: str) -> None:
    assert len(class_name(NAMED[form])) <= 2 * MAX_NAME + 1


def test_name_of_a_partial_of_partials_is_not_searched_for() -> None:
    """Each of a thousand metrics could be the end of a chain of a thousand."""
    value: Any = Global("fastai.metrics", "accuracy")
    for _ in range(3):
        value = Object(Global("functools", "partial"), (), (value, (), {}, None))
    assert class_name(value) == "functools.partial"


@pytest.mark.parametrize(
    "value",
    [
        *("x" * 2**20, b"\xff" * 2**20, 10**4000, Global("m" * 200, "n" * 200)),
        {"x" * 2**20: "x" * 2**20},
        [[["x" * 2**20] * 1000] * 1000] * 1000,
    ],
    ids=["text", "bytes", "number", "name", "dict", "lists"],
)
def test_shortened_value_is_short_and_costs_nothing(value: Any) -> None:
    with allocating_less_than(200_000):
        assert len(shorten(value)) < 25_000


@pytest.fixture
def export() -> Archive:
    """Return a Learner whose parts a test may change."""
    return open_archive(ROOT / "tests/support/exports/old/2.8.2-from_folder.pkl")


def lists_of(export: Archive) -> list[Any]:
    """Return what fastai keeps of photos and of labels."""
    loader = export.root.get("dls").get("loaders")[1]
    found: list[Any] = loader.get("dataset").get("tls").get("items")
    return found


def transforms_of(owner: Object, name: str) -> list[Any]:
    found: list[Any] = owner.get(name).get("fs").get("items")
    return found


def scalar(kind: str, raw: bytes) -> Object:
    dtype = Object(Global("numpy", "dtype"), (kind, False, True))
    return Object(Global("numpy.core.multiarray", "scalar"), (dtype, raw))


def set_vocab(export: Archive, labels: list[Any]) -> None:
    categorize = transforms_of(lists_of(export)[1], "tfms")[-1]
    categorize.get("vocab").get("items").state["items"] = labels


def test_labels_that_share_a_text_are_refused_at_the_second(export: Archive) -> None:
    raw = "x".encode("utf-32-le") * 2**18
    set_vocab(export, [scalar("U262144", raw) for _ in range(100)])
    with (
        allocating_less_than(5_000_000),
        pytest.raises(ConversionError, match="two of its classes"),
    ):
        read_learner(export)


def test_label_of_a_path_of_one_long_text_again_and_again_is_refused(export: Archive) -> None:
    path = Object(Global("pathlib", "PosixPath"), ("p" * 2**20,) * 1000)
    set_vocab(export, ["a", path])
    with pytest.raises(ConversionError, match="expected labels that are strings or numbers"):
        read_learner(export)


LISTS: dict[str, Callable[[Archive], list[Any]]] = {
    "transforms": lambda export: transforms_of(
        export.root.get("dls").get("loaders")[1], "after_batch"
    ),
    "blocks": lists_of,
    "functions": lambda export: transforms_of(lists_of(export)[0], "tfms"),
    "metrics": lambda export: export.root.get("_metrics").get("items"),
    "callbacks": lambda export: export.root.get("cbs").get("items"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_list_of_more_than_200_parts_is_refused(export: Archive, kind: str) -> None:
    """Whose members may be one object, so that the list costs the file next to nothing."""
    parts = LISTS[kind](export)
    parts[:0] = [Object(Global("m", "C"))] * 201
    with pytest.raises(ConversionError, match="at most 200 members"):
        read_learner(export)


def test_mark_of_the_byte_order_is_not_read_whole(tmp_path: Path) -> None:
    entries = {"x/data.pkl": b"\x80\x02N.", "x/byteorder": b"little" + bytes(2**24)}
    path = zipped(tmp_path / "export.pkl", entries, zipfile.ZIP_DEFLATED)
    with allocating_less_than(2_000_000), pytest.raises(ConversionError, match="big-endian"):
        open_archive(path)


def storage_calls(*contents: bytes, times: int = 1) -> bytes:
    """Return an ordinary pickle of tensors' data, each of which is referred to so often."""
    load = name("torch.storage", "_load_from_bytes")
    program = b"\x80\x03("
    for index, content in enumerate(contents):
        program += b"B" + struct.pack("<I", len(content)) + content + b"q%c0" % index
        program += (load + b"h%c\x85R" % index) * times
    return program + b"t."


@pytest.fixture
def storage() -> bytes:
    """Return what an ordinary pickle holds of a tensor of 4000 bytes."""
    file = io.BytesIO()
    torch.save(torch.zeros(1000).untyped_storage(), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def test_parts_of_tensors_data_count_with_those_of_their_pickle(
    tmp_path: Path, storage: bytes
) -> None:
    head = pickle.dumps(MAGIC_NUMBER, 2) + b"\x80\x02"
    assert storage.startswith(head)
    longer = storage.replace(head, head + b"N0" * 300_000)
    path = tmp_path / "export.pkl"
    path.write_bytes(storage_calls(longer))
    open_archive(path)
    path.write_bytes(storage_calls(longer, longer))
    with pytest.raises(ConversionError, match="more than 1,000,000 parts"):
        open_archive(path)


def test_data_of_a_tensor_that_is_named_three_times_is_refused(
    tmp_path: Path, storage: bytes
) -> None:
    path = tmp_path / "export.pkl"
    path.write_bytes(storage_calls(storage))
    assert [len(data) for data in open_archive(path).storages.values()] == [4000]
    path.write_bytes(storage_calls(storage, times=3))
    with pytest.raises(ConversionError, match="expected the data of a tensor"):
        open_archive(path)


MANY = tuple(range(201))
RELU = Global("torch.nn.functional", "relu")


@pytest.mark.parametrize(
    "value",
    [
        Object(Global("functools", "partial"), (), (RELU, MANY, {}, None)),
        Object(Global("functools", "partial"), (), (RELU, (), dict.fromkeys(MANY), None)),
        Object(Global("torch", "Size"), (MANY,)),
    ],
    ids=["arguments", "named arguments", "size"],
)
def test_what_copies_many_values_is_not_built(export: Archive, value: Object) -> None:
    """Thousands of them may share the values."""
    state = {"value": value, "_parameters": {}, "_buffers": {}, "_modules": {}}
    layer = Object(Global("torch.nn.modules.linear", "Identity"), (), state)
    assert isinstance(build_network(layer, export).value, Placeholder)
