"""The JSON API on Ray Serve: ``serve run icon_classifier.api.on_ray:app``.

A front runs the app of :mod:`icon_classifier.api.app`; the model runs in replicas, whose number
follows the load. Options are environment variables, as for one process. Needs the extra ``scale``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from starlette.types import ASGIApp, Receive, Scope, Send

from icon_classifier.api.app import create_app
from icon_classifier.api.classifier import LocalClassifier
from icon_classifier.api.settings import ApiSettings
from icon_classifier.errors import BusyError, ImageError
from icon_classifier.model.opening import open_model
from icon_classifier.model.session import Prediction

_MAX_ATTEMPTS = 4


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
        The folder of the model, which must exist on every machine of the cluster.
    settings : ApiSettings
        The limits of a photo.
    """

    def __init__(self, folder: str, settings: ApiSettings) -> None:
        model = open_model(folder, threads=1, keep_memory=True)
        self._classifier = LocalClassifier(model, replace(settings, threads=1))

    async def classify(
        self, photos: list[bytes], client: str
    ) -> list[Prediction | ImageError] | BusyError:
        """Classify photos; a BusyError is returned, because Ray would wrap a raised one."""
        try:
            return await self._classifier.classify(photos, client)
        except BusyError as error:
            return error


class _RemoteClassifier:
    """Sends photos to a replica, and to another one if that replica dies.

    Classifying has no side effects, so a repeated request does no harm.
    """

    stalled_seconds = 0.0  # Ray itself replaces replicas that are stuck

    def __init__(self, replicas: Any) -> None:
        self._replicas = replicas

    async def classify(
        self, photos: Sequence[bytes], client: str = ""
    ) -> list[Prediction | ImageError]:
        failure: Exception | None = None
        for _ in range(_MAX_ATTEMPTS):
            try:
                results = await self._replicas.classify.remote(list(photos), client)
            except RayActorError as error:
                failure = error
                continue
            except (BackPressureError, DeploymentUnavailableError) as error:
                raise BusyError("no replica is free") from error
            if isinstance(results, BusyError):
                raise results
            return list(results)
        raise BusyError(f"{_MAX_ATTEMPTS} replicas died during one request") from failure

    async def close(self) -> None:
        """Do nothing: Ray stops its replicas itself."""


class _WithState:
    """Copies the state of the app's lifespan into its requests, which Ray Serve does not do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = self._state if scope["type"] == "lifespan" else dict(self._state)
        await self._app({**scope, "state": state}, receive, send)


@serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 0})
@serve.ingress()
class Front:
    """Reads requests, sends their photos to the replicas, and responds.

    Parameters
    ----------
    folder : str
        The folder of the model, which the front opens for its labels.
    settings : ApiSettings
        The limits.
    replicas : ray.serve.handle.DeploymentHandle
        A handle of :class:`Replica`.
    """

    def __init__(self, folder: str, settings: ApiSettings, replicas: Any) -> None:
        self._folder = folder
        self._settings = settings
        self._replicas = replicas

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return _WithState(
            create_app(
                open_model(self._folder, threads=1),
                self._settings,
                make_classifier=lambda: _RemoteClassifier(self._replicas),
            )
        )


def build(settings: ApiSettings | None = None, *, replicas: int | None = None) -> Any:
    """Build the application for ``serve run`` or :func:`ray.serve.run`.

    Parameters
    ----------
    settings : ApiSettings, optional
        The limits; by default those of the environment.
    replicas : int, optional
        A fixed number of replicas; by default it follows the load.
    """
    settings = settings or ApiSettings.from_environ()
    folder = str(settings.model.resolve())
    # Ray's decorators change the classes in a way that type checkers cannot see.
    front: Any = Front
    replica: Any = Replica
    if replicas is not None:
        replica = replica.options(num_replicas=replicas, autoscaling_config=None)
    return front.bind(folder, settings, replica.bind(folder, settings))


def __getattr__(name: str) -> Any:
    # For ``serve run icon_classifier.api.on_ray:app``. A function, so that an import does not read
    # the environment.
    if name == "app":
        return build()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
