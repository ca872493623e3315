"""Open the model of a project folder, once per process; convert it first if necessary."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icon_classifier.errors import ModelError, ModelMissingError, ModelStaleError
from icon_classifier.files import sha256_of
from icon_classifier.model.info import compiler_sha256, read_metadata
from icon_classifier.model.names import names_file
from icon_classifier.system.memory import usable_cores

if TYPE_CHECKING:
    from icon_classifier.model.session import Model

EXPORT = "export.pkl"
"""Name of the trained Learner, the only source of the model."""

MODEL = "export.onnx"
"""Name of the file converted from it."""

MAX_THREADS = 4
MAX_CONVERT_SECONDS = 300.0


def open_model(
    folder: str | Path = ".", *, threads: int | None = None, keep_memory: bool = False
) -> Model:
    """Open the model of a project folder; convert it first where that is necessary and possible.

    A process opens the same file once: a kernel forked from a parent that has opened the model
    uses the parent's.

    Parameters
    ----------
    folder : str or pathlib.Path, optional
        The folder of export.pkl and export.onnx. Without an export.pkl, export.onnx is used as it
        is; so it is where only the code that converts changed and torch is not installed.
    threads : int, optional
        How many cores one photo may use. By default ``OMP_NUM_THREADS``, else the cores that this
        process may use, four at most.
    keep_memory : bool, optional
        See :class:`Model`.

    Raises
    ------
    ModelMissingError
        If there is no export.onnx and none can be made.
    ModelStaleError
        If export.onnx was converted from another export.pkl and cannot be converted again.
    ModelDamagedError
        If export.onnx cannot be read.
    """
    folder = Path(folder).resolve()
    if folder.is_file():
        raise ModelMissingError(f"expected the folder of {MODEL}, got the file {folder}")
    threads = threads or _default_threads()
    try:
        return _open(folder, _identity(folder), threads, keep_memory)
    except ModelError as error:
        if not _can_convert(folder / EXPORT):
            raise type(error)(f"{error}; {_advice(folder)}") from error
        _convert(folder, because=error)
    return _open(folder, _identity(folder), threads, keep_memory)


def is_up_to_date(model: str | Path, export: str | Path) -> bool:
    """Return whether export.onnx is current, without opening it.

    It is not if it is missing or damaged, if export.pkl or the class names changed, or if the code
    changed and torch is installed.
    """
    try:
        return not _why_stale(read_metadata(model), Path(export))
    except ModelError:
        return False


def _why_stale(metadata: Mapping[str, Any], export: Path) -> str:
    """Return why a model must be converted again; empty if it need not be."""
    if not export.is_file():
        return ""
    if metadata.get("export_sha256") != sha256_of(export):
        return f"was converted from another {export.name} than the one beside it"
    names = names_file(export)
    if metadata.get("names_sha256") != (sha256_of(names) if names.is_file() else None):
        return f"was converted with other names of classes than those in {names.name}"
    if metadata.get("compiler_sha256") != compiler_sha256() and _can_convert(export):
        return "was converted by another version of icon_classifier"
    return ""


def _default_threads() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return min(usable_cores(), MAX_THREADS)


_Identity = tuple[tuple[int, int, int] | None, ...]


def _identity(folder: Path) -> _Identity:
    """Return what changes when one of the files is replaced; None for a missing file."""

    def of(path: Path) -> tuple[int, int, int] | None:
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    return of(folder / MODEL), of(folder / EXPORT), of(names_file(folder / EXPORT))


@functools.lru_cache(maxsize=4)
def _open(folder: Path, _: _Identity, threads: int, keep_memory: bool) -> Model:
    """Open and check; the identity gives another pair of files another entry in the cache."""
    # Imported here: whether a model is up to date is found without ONNX Runtime.
    from icon_classifier.model.session import Model

    model = Model.load(folder / MODEL, threads, keep_memory=keep_memory)
    if reason := _why_stale(model.info.raw, folder / EXPORT):
        raise ModelStaleError(f"{folder / MODEL} {reason}")
    return model


def _can_convert(export: Path) -> bool:
    return export.is_file() and all(map(importlib.util.find_spec, ("fastai", "onnx", "torch")))


def _advice(folder: Path) -> str:
    if not (folder / EXPORT).is_file():
        return f"put an {EXPORT} into {folder} and run 'icon-classifier convert'"
    return "install torch and fastai (requirements.txt), then run 'icon-classifier convert'"


def _convert(folder: Path, because: ModelError) -> None:
    """Convert in a process of its own, so that a serving process never imports torch."""
    command = [sys.executable, "-m", "icon_classifier", "convert", str(folder / EXPORT)]
    # -m looks in the current folder first: this package must be found where it is not installed.
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            command,
            cwd=root,
            capture_output=True,
            text=True,
            timeout=MAX_CONVERT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise type(because)(f"{because}; converting it failed: {error}") from error
    if done.returncode:
        reason = done.stderr.strip().rpartition("icon-classifier: ")[2][-2000:]
        # One that the kernel kills for want of memory says nothing.
        reason = reason or f"it ended with code {done.returncode} (-9: mostly too little memory)"
        raise type(because)(f"{because}; converting it failed: {reason}") from because
