"""Classify folders of photos on a Ray cluster: ``icon-classifier predict --ray``.

Needs the extra ``scale``.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import ray
from PIL import Image

from icon_classifier.cli.predict import Record, error_record, find_photos, prediction_record
from icon_classifier.errors import FILE_NOT_OPENED, ImageError, SettingsError
from icon_classifier.formats import SUFFIXES
from icon_classifier.images import Limits, read_image, read_image_file
from icon_classifier.model.session import Model

_CHUNK_SIZE = 2048
"""Photos that are sent to the cluster at a time, which limits the memory of the driver."""

_BATCH_SIZE = 8

_ADDRESS_ERRORS = (
    ImportError,  # no s3fs, gcsfs, …
    OSError,
    TypeError,  # an address that lacks a part
    ValueError,  # of an unknown kind
)


def find_photos_anywhere(
    arguments: Iterable[str], passed_over: Counter[str] | None = None
) -> Iterator[str]:
    """Find photos as ``icon-classifier predict`` does, also at fsspec addresses.

    Parameters
    ----------
    arguments : iterable of str
        Paths, patterns, or addresses such as ``s3://bucket/folder``.
    passed_over : Counter, optional
        Counts the other files in folders by what they are.

    Raises
    ------
    SettingsError
        If an address is of no kind that is installed here, or does not answer.
    """
    passed_over = Counter() if passed_over is None else passed_over
    for argument in arguments:
        if "://" not in argument:
            # Absolute: the workers have other working directories.
            yield from map(os.path.abspath, find_photos([argument], passed_over))
            continue
        try:
            system, path = fsspec.core.url_to_fs(argument)
            is_folder = system.isdir(path)
        except _ADDRESS_ERRORS as error:
            raise SettingsError(f"cannot look for photos at {argument}: {error}") from error
        if not is_folder:
            yield argument
            continue
        for folder, _, files in system.walk(path):
            for name in sorted(files):
                if name.lower().endswith(SUFFIXES):
                    yield system.unstrip_protocol(f"{folder.rstrip('/')}/{name}")
                else:
                    passed_over[PurePosixPath(name).suffix.lower() or "without a suffix"] += 1


def classify_on_ray(
    model: Path, paths: Iterable[str], *, top: int | None = None
) -> Iterator[Record]:
    """Classify photos on all machines of a Ray cluster.

    The cluster is the one that ``RAY_ADDRESS`` names, or else a temporary one on this machine.

    Parameters
    ----------
    model : pathlib.Path
        An export.onnx; its content is sent to the machines.
    paths : iterable of str
        Paths that all machines can read, or fsspec addresses.
    top : int, optional
        Maximum number of entries in each ranking.

    Yields
    ------
    Record
        In the order of `paths`; one with an error where a photo cannot be used.
    """
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
    try:
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False  # the command line shows its own
        data = model.read_bytes()
        remaining = iter(paths)
        while chunk := list(itertools.islice(remaining, _CHUNK_SIZE)):
            dataset = ray.data.from_items(
                [{"path": os.fsencode(path)} for path in chunk]
            ).map_batches(
                _Worker,
                fn_constructor_args=(data, top),
                batch_size=_BATCH_SIZE,
                batch_format="numpy",
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=_cluster_cores()),
            )
            for row in dataset.iter_rows():
                yield json.loads(row["record"])
    finally:
        if started_here:
            ray.shutdown()


def _cluster_cores() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


class _Worker:
    """One model in one process of the cluster."""

    def __init__(self, data: bytes, top: int | None) -> None:
        self._model = Model(data, keep_memory=True)
        self._top = top

    def __call__(self, batch: Any) -> dict[str, list[str]]:
        # As JSON: Ray's tables would give every record the fields of all others.
        records = [json.dumps(self._classify(os.fsdecode(path))) for path in batch["path"]]
        return {"record": records}

    def _classify(self, path: str) -> Record:
        try:
            return prediction_record(path, self._model.predict(_read(path)), self._top)
        except ImageError as error:
            return error_record(path, error)


def _read(path: str) -> Image.Image:
    if "://" not in path:  # in a name "::" is nothing special, in an address it joins two
        return read_image_file(path)
    limits = Limits()
    try:
        with fsspec.open(path, "rb") as file:
            data = file.read(limits.max_bytes + 1)
    except _ADDRESS_ERRORS as error:
        raise ImageError(f"cannot read {path}: {error}", words=FILE_NOT_OPENED) from error
    return read_image(data, limits)
