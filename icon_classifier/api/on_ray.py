"""More than one machine: the JSON API on Ray Serve, folders of photos on Ray.

``serve run icon_classifier.api.on_ray:app`` serves the app of :mod:`.app` with its model in
replicas of their own, which come and go with the load; ``icon-classifier predict --ray`` spreads
photos over a cluster. Needs the extra ``scale``.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from starlette.types import ASGIApp, Receive, Scope, Send

from icon_classifier.api.app import create_app, local_classifier
from icon_classifier.api.settings import ApiSettings
from icon_classifier.cli.predict import Record, answer, failure, find_photos
from icon_classifier.errors import BusyError, ImageError, UnsupportedImageError
from icon_classifier.images import SUFFIXES, Limits, read_image
from icon_classifier.model.opening import open_model
from icon_classifier.model.session import Model, Prediction

_RETRIES = 3
_CHUNK = 2048
"""Photos that are handed to the cluster at a time: bounds what the driver keeps in mind."""

_BATCH = 8


@serve.deployment(
    autoscaling_config={"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 4},
    max_ongoing_requests=32,
    ray_actor_options={"num_cpus": 1},
)
class Replica:
    """One model in one process.

    Parameters
    ----------
    folder : str
        Where export.pkl and export.onnx lie, on every machine of the cluster.
    """

    def __init__(self, folder: str) -> None:
        model = open_model(folder, threads=1, keep_memory=True)
        self._classifier = local_classifier(model, ApiSettings(threads=1))

    async def classify(self, photos: list[bytes]) -> list[Prediction | ImageError] | BusyError:
        """Classify photos; being busy is returned, for Ray would dress up what is raised."""
        try:
            return await self._classifier.classify(photos)
        except BusyError as error:
            return error

    def process(self) -> int:
        """Tell the number of this process."""
        return os.getpid()


class _RemoteClassifier:
    """Hands photos to a replica, and to another one if that dies meanwhile.

    Classifying changes nothing, so that asking twice does no harm.
    """

    def __init__(self, handle: Any, queue: int) -> None:
        self._handle = handle
        self._queue = queue
        self._pending = 0

    @property
    def pending(self) -> int:
        return self._pending

    async def classify(self, photos: Sequence[bytes]) -> list[Prediction | ImageError]:
        if self._pending + len(photos) > self._queue:
            raise BusyError(f"{self._pending} photos wait already, {self._queue} at most")
        self._pending += len(photos)
        try:
            return await self._with_retries(list(photos))
        finally:
            self._pending -= len(photos)

    async def _with_retries(self, photos: list[bytes]) -> list[Prediction | ImageError]:
        failure: Exception | None = None
        for _ in range(_RETRIES + 1):
            try:
                answers = await self._handle.classify.remote(photos)
            except RayActorError as error:
                failure = error
                continue
            except (BackPressureError, DeploymentUnavailableError) as error:
                raise BusyError("no replica is free") from error
            if isinstance(answers, BusyError):
                raise answers
            return list(answers)
        raise BusyError(f"{_RETRIES + 1} replicas died over one request") from failure

    async def close(self) -> None:
        """Nothing to do: Ray ends its replicas itself."""


class _Stateful:
    """Carries what the app's lifespan yields into its requests; Ray Serve drops it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = self._state if scope["type"] == "lifespan" else dict(self._state)
        await self._app({**scope, "state": state}, receive, send)


@serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 0})
@serve.ingress()
class Front:
    """The app of :mod:`icon_classifier.api.app`: reads requests, asks the replicas, answers.

    Parameters
    ----------
    folder : str
        Where the model lies; the front only tells of it.
    settings : ApiSettings
        The limits.
    replicas : ray.serve.handle.DeploymentHandle
        Of :class:`Replica`.
    """

    def __init__(self, folder: str, settings: ApiSettings, replicas: Any) -> None:
        self._folder = folder
        self._settings = settings
        self._replicas = replicas

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return _Stateful(
            create_app(
                open_model(self._folder, threads=1),
                self._settings,
                classifier=lambda: _RemoteClassifier(self._replicas, self._settings.queue),
            )
        )


def build(settings: ApiSettings | None = None, *, replicas: int | None = None) -> Any:
    """Put front and replicas together, for ``serve run`` or :func:`ray.serve.run`.

    Parameters
    ----------
    settings : ApiSettings, optional
        The limits; by default those of the environment.
    replicas : int, optional
        How many there always are; by default they come and go with the load.
    """
    settings = settings or ApiSettings.from_environ()
    folder = str(settings.model.resolve())
    # What Ray's decorators made of the classes, type checkers cannot see.
    front: Any = Front
    replica: Any = Replica
    if replicas is not None:
        replica = replica.options(num_replicas=replicas, autoscaling_config=None)
    return front.bind(folder, settings, replica.bind(folder))


def __getattr__(name: str) -> Any:
    # For ``serve run icon_classifier.api.on_ray:app``: the environment is read when asked for.
    if name == "app":
        return build()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def find_photos_anywhere(arguments: Iterable[str]) -> Iterator[str]:
    """Find photos as ``icon-classifier predict`` does, also at fsspec addresses.

    Parameters
    ----------
    arguments : iterable of str
        Paths, patterns, or addresses such as ``s3://bucket/folder``.
    """
    for argument in arguments:
        if "://" not in argument:
            yield from map(os.path.abspath, find_photos([argument]))  # workers live elsewhere
            continue
        system, path = fsspec.core.url_to_fs(argument)
        if not system.isdir(path):
            yield argument
            continue
        for folder, _, files in system.walk(path):
            for name in sorted(files):
                if name.lower().endswith(SUFFIXES):
                    yield system.unstrip_protocol(f"{folder.rstrip('/')}/{name}")


def classify_on_ray(
    model: Path, paths: Iterable[str], *, top: int | None = None
) -> Iterator[Record]:
    """Classify photos on all machines of a Ray cluster.

    The cluster is the one that ``RAY_ADDRESS`` names, else one of this machine, made for the time.

    Parameters
    ----------
    model : pathlib.Path
        An export.onnx; it travels to the machines by itself.
    paths : iterable of str
        Paths that all machines see, or fsspec addresses.
    top : int, optional
        Entries of each ranking at most.

    Yields
    ------
    Record
        In the order of `paths`; one with an error where a photo cannot be used.
    """
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
    try:
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False  # the command line draws its own
        data = model.read_bytes()
        remaining = iter(paths)
        while chunk := list(itertools.islice(remaining, _CHUNK)):
            dataset = ray.data.from_items(
                [{"path": os.fsencode(path)} for path in chunk]
            ).map_batches(
                _Worker,
                fn_constructor_args=(data, top),
                batch_size=_BATCH,
                batch_format="numpy",
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=_processors()),
            )
            for row in dataset.iter_rows():
                yield json.loads(row["record"])
    finally:
        if ours:
            ray.shutdown()


def _processors() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


class _Worker:
    """One model in one process of the cluster."""

    def __init__(self, data: bytes, top: int | None) -> None:
        self._model = Model(data, keep_memory=True)
        self._top = top

    def __call__(self, batch: Any) -> dict[str, list[str]]:
        # As text: Ray's tables would give every record the fields of all others.
        records = [json.dumps(self._one(os.fsdecode(path))) for path in batch["path"]]
        return {"record": records}

    def _one(self, path: str) -> Record:
        limits = Limits()
        try:
            with fsspec.open(path, "rb") as file:
                data = file.read(limits.max_bytes + 1)
        except (OSError, ValueError, ImportError) as error:
            missing = UnsupportedImageError(str(error), words="This file cannot be opened.")
            return failure(path, missing)
        try:
            return answer(path, self._model.predict(read_image(data, limits)), self._top)
        except ImageError as error:
            return failure(path, error)
