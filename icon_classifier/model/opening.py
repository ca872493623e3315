"""Open the model of a folder: once a process, and compiled first where that is needed.

The one way from export.pkl and export.onnx on the disk to a :class:`~.session.Model`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from icon_classifier.errors import ModelError, ModelStaleError
from icon_classifier.model.session import Model

EXPORT = "export.pkl"
"""Name of the trained Learner, the one source of the model."""

MODEL = "export.onnx"
"""Name of the file compiled from it."""

_MOST_THREADS = 4
_COMPILE_SECONDS = 300.0


def open_model(
    folder: str | Path = ".", *, threads: int | None = None, keep_memory: bool = False
) -> Model:
    """Open the model of a project folder, compiling it first where that is needed and possible.

    One process opens the same file once: a kernel forked from a parent that has opened the model
    gets the parent's.

    Parameters
    ----------
    folder : str or pathlib.Path, optional
        Where export.pkl and export.onnx lie. export.pkl may be missing: then export.onnx is taken
        as it is.
    threads : int, optional
        How many cores one photo may use. Without it ``OMP_NUM_THREADS`` says, else the cores that
        this process may use, four at most.
    keep_memory : bool, optional
        See :class:`Model`.

    Raises
    ------
    ModelMissingError
        If there is no export.onnx and none can be compiled.
    ModelStaleError
        If export.onnx belongs to another export.pkl and cannot be compiled again.
    ModelDamagedError
        If export.onnx cannot be read.
    """
    folder = Path(folder).resolve()
    threads = threads or _usual_threads()
    try:
        return _open(folder, _identity(folder), threads, keep_memory)
    except ModelError as error:
        if not _can_compile(folder):
            raise type(error)(f"{error}; {_advice(folder)}") from error
        _compile(folder, because=error)
    return _open(folder, _identity(folder), threads, keep_memory)


def _usual_threads() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    # Not os.cpu_count(): a container may use fewer than the machine has.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(usable or 1, _MOST_THREADS)


def file_sha256(path: Path) -> str:
    """Hash a file.

    Returns
    -------
    str
        64 lower-case hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_Identity = tuple[tuple[int, int, int] | None, ...]


def _identity(folder: Path) -> _Identity:
    """Tell whether the two files are still those that were opened; None where there is none."""

    def of(path: Path) -> tuple[int, int, int] | None:
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    return of(folder / MODEL), of(folder / EXPORT)


@functools.lru_cache(maxsize=4)
def _open(folder: Path, _: _Identity, threads: int, keep_memory: bool) -> Model:
    """Open and check; the identity makes another pair of files another entry of the cache."""
    model = Model.load(folder / MODEL, threads, keep_memory=keep_memory)
    export = folder / EXPORT
    if export.is_file():
        found = file_sha256(export)
        if model.info.export_sha256 != found:
            raise ModelStaleError(
                f"{folder / MODEL} was compiled from another {EXPORT} "
                f"({model.info.export_sha256[:12]}…) than the one beside it ({found[:12]}…)"
            )
    return model


def _has_torch() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch", "fastai"))


def _can_compile(folder: Path) -> bool:
    return _has_torch() and (folder / EXPORT).is_file()


def _advice(folder: Path) -> str:
    if not (folder / EXPORT).is_file():
        return f"put an {EXPORT} into {folder} and run 'icon-classifier convert'"
    return "install torch and fastai (requirements.txt), then run 'icon-classifier convert'"


def _compile(folder: Path, because: ModelError) -> None:
    """Compile in a process of its own: the one that serves never unpickles anything."""
    command = [sys.executable, "-m", "icon_classifier", "convert", str(folder / EXPORT)]
    # -m looks in the current folder first: this package must be found where it is not installed.
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise type(because)(f"{because}; compiling it failed: {error}") from error
    if done.returncode:
        reason = done.stderr.strip()[-2000:]
        raise type(because)(f"{because}; compiling it failed: {reason}") from because
