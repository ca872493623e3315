"""Nothing in an export.pkl is run: each name and call in a pickle becomes a symbol."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icon_classifier.conversion.archive import open_archive
from icon_classifier.conversion.convert import convert
from icon_classifier.conversion.learner import read_learner
from icon_classifier.conversion.network import build_network
from icon_classifier.conversion.unpickler import Global, Object, Storage
from icon_classifier.errors import ConversionError, NotAnExportError, UntrustedExportError


def text(value: str) -> bytes:
    """Return the opcode that pushes a string."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def stack_global(module: str, name: str) -> bytes:
    """Return the opcodes of protocol 4 that push a class or function; the name may be dotted."""
    return text(module) + text(name) + b"\x93"


def archive(path: Path, program: bytes, **others: bytes) -> Path:
    """Write a zip with the layout of torch.save."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", program)
        file.writestr("archive/byteorder", "little")
        for name, content in others.items():
            file.writestr(f"archive/{name}", content)
    return path


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def crafted(canary: Path) -> dict[str, bytes]:
    """Return pickles that run a command, import or open something when pickle loads them."""
    command = f"touch {canary}"
    touch = Call(os.system, command)
    code = f"__import__('os').system({command!r})"
    shell = text(command) + b"\x85R."  # one argument, call, stop
    head = b"\x80\x04"
    return {
        "os.system": pickle.dumps(touch, 2),
        "nested": pickle.dumps({"model": [OrderedDict(a=(1, {"b": touch}))]}, 2),
        "protocol 4": pickle.dumps(touch, 4),
        "protocol 0": pickle.dumps(touch, 0),
        "eval": pickle.dumps(Call(eval, code), 2),
        "exec": pickle.dumps(Call(exec, code), 4),
        "import": pickle.dumps(Call(__import__, "antigravity"), 2),
        "subprocess": pickle.dumps(Call(subprocess.run, command, -1, None, None), 2),
        "torch.load": pickle.dumps(Call(torch.load, str(canary)), 2),
        "torch.hub": pickle.dumps(Call(torch.hub.load, "a/b", "c"), 2),
        "load_library": b"\x80\x02ctorch\nops.load_library\n" + shell,
        "dotted": head + stack_global("fastai.imports", "os.system") + shell,
        "dotted fastai": head + stack_global("fastai.learner", "os.system") + shell,
        "re-exported": b"\x80\x02cfastai.imports\nos\n0" + pickle.dumps(None, 2)[2:],
        "re-exported function": head + stack_global("fastcore.xtras", "run") + shell,
        "exec_new": head + stack_global("fastcore.basics", "exec_new") + text(code) + b"\x85R.",
        "posix": head + stack_global("posix", "system") + shell,
        "getattr chain": (
            head
            + stack_global("builtins", "getattr")
            + stack_global("fastai.learner", "Learner")
            + text("__init__")
            + b"\x86R."
        ),
        "operator": head + stack_global("operator", "methodcaller") + shell,
        "INST": b"\x80\x02(" + text(command) + b"ios\nsystem\n.",
        "OBJ": b"\x80\x02(cos\nsystem\n" + text(command) + b"o.",
        "extension registry": b"\x80\x02\x82\x01.",
        "text persistent id": b"\x80\x02Pstorage\n.",
        "DUP": b"\x80\x02N2\x86.",
        "setstate on a class": b"\x80\x02cfastai.learner\nLearner\n}" + text("f") + b"Nsb.",
        "call of a text": b"\x80\x02" + text("os.system") + shell,
        "stored by value": (
            b"\x80\x02ccloudpickle.cloudpickle\nsubimport\n" + text("os") + b"\x85R"
            b"cos\nsystem\n" + shell
        ),
        "in the storage": b"\x80\x02(" + text("storage") + pickle.dumps(touch, 2)[2:-1] + b"tQ.",
        "as the storage's kind": (
            b"\x80\x02("
            + text("storage")
            + b"cos\nsystem\n"
            + text("0")
            + text("cpu")
            + b"K\x01tQ."
        ),
        "storage elsewhere": (
            b"\x80\x02("
            + text("storage")
            + b"ctorch\nFloatStorage\n"
            + text("../../x")
            + text("cpu")
            + b"K\x01tQ."
        ),
        "codec": head + stack_global("_codecs", "encode") + text("a") + text("rot13") + b"\x86R.",
    }


ONLY_CRAFTED = {
    *("INST", "OBJ", "DUP", "extension registry", "text persistent id", "setstate on a class"),
    *("call of a text", "in the storage", "as the storage's kind", "storage elsewhere"),
}
"""Those that use what neither Python nor torch writes; the others are harmless symbols."""


@pytest.mark.parametrize("name", crafted(Path("canary")))
def test_crafted_pickles_are_refused_and_run_nothing(tmp_path, name):
    canary = tmp_path / "canary"
    path = archive(tmp_path / "export.pkl", crafted(canary)[name])
    kind = UntrustedExportError if name in ONLY_CRAFTED else NotAnExportError
    with pytest.raises(kind, match=r"the pickle|expected an export of a fastai Learner"):
        convert(path)
    assert not canary.exists()
    assert not path.with_suffix(".onnx").exists()


@pytest.mark.parametrize(
    "name", ["os.system", "nested", "protocol 4", "protocol 0", "eval", "INST"]
)
def test_crafted_pickles_run_when_pickle_loads_them(tmp_path, name):
    """In a process of its own; otherwise the test above would prove nothing."""
    canary = tmp_path / "canary"
    program = crafted(canary)[name]
    script = f"import pickle; pickle.loads({program!r})"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert canary.exists()


AUDIT = """
import mmap
import sys
from pathlib import Path
from icon_classifier.conversion.archive import open_archive
from icon_classifier.conversion.learner import read_learner
from icon_classifier.conversion.network import build_network
from icon_classifier.errors import ConversionError

path = None
# zipfile and pickletools import these codecs.
b"a".decode("cp437"), b"a".decode("raw_unicode_escape")

def audit(event, arguments):
    reads = event == "open" and arguments[0] in (path, str(path)) and arguments[1] in ("r", "rb")
    reads |= event == "mmap.__new__" and arguments[2] == mmap.ACCESS_READ
    if path is not None and not reads:
        print(path.name, event, arguments)

sys.addaudithook(audit)
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read_learner(open_archive(path))
    except ConversionError:
        continue
    print(path.name, "was not refused")
"""


@pytest.mark.slow
def test_crafted_pickles_cause_no_audit_event(tmp_path):
    """Python reports every import, execution, process and connection to audit hooks."""
    (tmp_path / "pickles").mkdir()
    for name, program in crafted(tmp_path / "canary").items():
        archive(tmp_path / "pickles" / f"{name}.pkl", program)
        if program.startswith(b"\x80"):
            (tmp_path / "pickles" / f"{name} without zip.pkl").write_bytes(program)
    command = [sys.executable, "-c", AUDIT, tmp_path / "pickles"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert not done.stdout


def test_a_second_pickle_in_the_zip_is_refused(tmp_path):
    canary = tmp_path / "canary"
    evil = crafted(canary)["os.system"]
    path = archive(tmp_path / "export.pkl", pickle.dumps(None, 2), **{"other.pkl": evil})
    with pytest.raises(UntrustedExportError, match="one pickle"):
        convert(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the duplicate name
        path = archive(tmp_path / "twice.pkl", pickle.dumps(None, 2), **{"data.pkl": evil})
    with pytest.raises(UntrustedExportError, match="one pickle"):
        convert(path)
    assert not canary.exists()


def test_a_pickle_among_the_tensors_is_not_read(tiny_export, tmp_path):
    canary = tmp_path / "canary"
    path = shutil.copy(tiny_export, tmp_path / "export.pkl")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("export/data/9999", crafted(canary)["os.system"])
    convert(path)
    assert not canary.exists()


def test_pickles_of_other_formats_run_nothing(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "export.pkl"
    evil = Call(os.system, f"touch {canary}")
    torch.save(evil, path, _use_new_zipfile_serialization=False)
    with pytest.raises(NotAnExportError, match=r"not of a Learner \(posix\.system\)"):
        convert(path)
    path.write_bytes(pickle.dumps(evil))
    with pytest.raises(NotAnExportError, match=r"not of a Learner \(posix\.system\)"):
        convert(path)
    assert not canary.exists()


SAVE: dict[str, Callable[[Any, Path], None]] = {
    "zip": lambda value, path: torch.save(value, path),
    "before torch 1.6": lambda value, path: torch.save(
        value, path, _use_new_zipfile_serialization=False
    ),
    "pickle": lambda value, path: path.write_bytes(pickle.dumps(value)),
    "pickle of protocol 2": lambda value, path: path.write_bytes(pickle.dumps(value, 2)),
    "cloudpickle": lambda value, path: path.write_bytes(cloudpickle.dumps(value)),
}


@pytest.mark.parametrize("form", SAVE)
def test_networks_of_all_formats_are_read(tmp_path, form):
    with torch.no_grad():
        layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).eval()
        layer[0].bias.data = layer[0].weight.data[:, 0]  # two tensors of one storage
    SAVE[form]({"layer": layer, "other": torch.arange(3)}, tmp_path / "a.pkl")
    opened = open_archive(tmp_path / "a.pkl")
    built = build_network(opened.root["layer"], opened)
    sample = torch.randn(4, 3)
    assert torch.equal(built(sample), layer(sample))


def test_a_compressed_zip_is_read(tiny_export, tmp_path):
    path = tmp_path / "export.pkl"
    with (
        zipfile.ZipFile(tiny_export) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    expected, got = (read_learner(open_archive(file)) for file in (tiny_export, path))
    assert got.transforms == expected.transforms
    with open_archive(path).open_storages() as read:
        assert len(read("0", zipfile.ZipFile(path).getinfo("export/data/0").file_size)) > 0


def test_a_big_endian_file_is_refused(tmp_path):
    path = tmp_path / "export.pkl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(None, 2))
        file.writestr("archive/byteorder", "big")
    with pytest.raises(ConversionError, match="big-endian"):
        open_archive(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_are_parsed(tmp_path, protocol):
    shared = ["a", 1]
    value = {
        "numbers": [0, -1, 255, 70_000, 2**40, -(2**70), 1.5, True, False, None],
        "texts": ("", "ü", "x" * 300, b"\x00\xff", b"y" * 300),
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "sets": ({1, 2}, frozenset({3})),
        "ordered": OrderedDict(b=1, a=2),
        "shared": [shared, shared],
    }
    read = open_archive(archive(tmp_path / "a.pkl", pickle.dumps(value, protocol))).root
    assert read == value
    assert list(read["ordered"]) == ["b", "a"]
    assert read["shared"][0] is read["shared"][1]


def test_a_type_that_dill_names_is_known(tmp_path):
    dill = stack_global("dill._dill", "_load_type") + text("set") + b"\x85R"
    program = b"\x80\x04" + dill + b"]K\1a\x85R."
    assert open_archive(archive(tmp_path / "a.pkl", program)).root == {1}


def test_objects_become_symbols(tmp_path):
    value = {"weight": torch.arange(6.0).reshape(2, 3), "path": Path("a/b")}
    torch.save(value, tmp_path / "a.pkl")
    opened = open_archive(tmp_path / "a.pkl")
    tensor, path = opened.root["weight"], opened.root["path"]
    assert tensor.cls == "torch._utils._rebuild_tensor_v2"
    assert tensor.args[:4] == (Storage("FloatStorage", "0", 6), 0, (2, 3), (3, 1))
    assert isinstance(path, Object)
    assert path.call == Global("pathlib", "PosixPath")
    with opened.open_storages() as read:
        assert read("0", 24) == struct.pack("<6f", *range(6))
        with pytest.raises(ConversionError, match="expected 28 bytes"):
            read("0", 28)
        with pytest.raises(ConversionError, match="no item named"):
            read("1", 24)


def test_get_returns_attributes_of_a_learner(tiny_export):
    learn = open_archive(tiny_export).root
    assert learn.cls == "fastai.learner.Learner"
    assert learn.get("model_dir") == "models"
    assert learn.get("nothing", 3) == 3
    assert learn.get("dls").cls == "fastai.data.core.DataLoaders"


@pytest.fixture(scope="session")
def small_program() -> bytes:
    """Return the pickle of a small layer."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"layer": torch.nn.Linear(2, 2), "labels": ["a", "b"]}, file)
    with zipfile.ZipFile(file) as opened:
        return opened.read("archive/data.pkl")


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_mutated_pickles_raise_only_conversion_errors(tmp_path, small_program, data):
    program = bytearray(small_program)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(program) - 1))
        change = data.draw(st.binary(min_size=0, max_size=4))
        program[at : at + data.draw(st.integers(0, 4))] = change
    path = archive(tmp_path / "export.pkl", bytes(program))
    with contextlib.suppress(ConversionError):
        open_archive(path)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(program=st.binary(max_size=60))
def test_random_pickles_raise_only_conversion_errors(tmp_path, program):
    path = archive(tmp_path / "export.pkl", b"\x80\x02" + program)
    with contextlib.suppress(ConversionError):
        open_archive(path)


def test_a_deeply_nested_pickle_raises_a_conversion_error(tmp_path):
    program = b"\x80\x02" + b"(" * 50_000 + b"l" * 50_000 + b"."
    nested = open_archive(archive(tmp_path / "deep.pkl", program))
    assert isinstance(nested.root, list)
    with pytest.raises(ConversionError, match="expected an export of a fastai Learner"):
        convert(tmp_path / "deep.pkl")
