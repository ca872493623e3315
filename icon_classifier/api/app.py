"""The JSON API: a Starlette app around one model.

Run it with ``icon-classifier api``, or with ``uvicorn icon_classifier.api.app:app``. Its options
are environment variables, see :class:`~icon_classifier.api.settings.ApiSettings`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from icon_classifier.api.classifier import Classifier, LocalClassifier
from icon_classifier.api.fetch import Fetcher
from icon_classifier.api.limits import ApiKeys, Budget, RateLimiter
from icon_classifier.api.openapi import openapi_document
from icon_classifier.api.pages import PAGE_HEADERS, docs_page, upload_page
from icon_classifier.api.problems import (
    EXCEPTION_HANDLERS,
    error_headers,
    problem,
    root_path,
    status_code,
)
from icon_classifier.api.settings import ApiSettings
from icon_classifier.api.uploads import Upload, read_upload
from icon_classifier.errors import (
    STALLED,
    BusyError,
    IconClassifierError,
    ImageError,
    RequestError,
)
from icon_classifier.model.opening import open_model
from icon_classifier.model.session import Model, Prediction
from icon_classifier.system.clients import client_address

MAX_STALL_SECONDS = 60.0
"""How long photos may be in work, none of which is finished, until ``/healthz`` fails."""


def create_app(
    model: Model,
    settings: ApiSettings | None = None,
    *,
    multithreaded: Model | None = None,
    fetcher: Fetcher | None = None,
    make_classifier: Callable[[], Classifier] | None = None,
) -> Starlette:
    """Create the app.

    Parameters
    ----------
    model : Model
        Classifies the photos.
    settings : ApiSettings, optional
        The limits.
    multithreaded : Model, optional
        The same model opened with several threads, for a photo that is alone.
    fetcher : Fetcher, optional
        Downloads photos from URLs.
    make_classifier : callable, optional
        Called when the app starts; by default photos are classified on this machine.

    Returns
    -------
    starlette.applications.Starlette
        An ASGI application; its lifespan starts and stops the classifier.
    """
    settings = settings or ApiSettings()
    api = _Api(
        model,
        settings,
        fetcher or Fetcher(settings),
        make_classifier or (lambda: LocalClassifier(model, settings, multithreaded)),
    )
    routes = [
        Route("/", api.page, methods=["GET", "POST"]),
        Route("/classify", api.classify, methods=["POST"]),
        Route("/classify-url", api.classify_url, methods=["GET"]),
        Route("/labels", api.labels, methods=["GET"]),
        Route("/healthz", api.health, methods=["GET"]),
        Route("/openapi.json", api.openapi, methods=["GET"]),
        Route("/docs", api.docs, methods=["GET"]),
    ]
    routes += [
        Route(f"{route.path}/", _without_slash, methods=route.methods, include_in_schema=False)
        for route in routes[1:]
    ]
    middleware = []
    if settings.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type", "X-API-Key"],
                expose_headers=["Retry-After"],
            )
        )
    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=api.lifespan,
    )
    app.router.redirect_slashes = False  # it would redirect to any Host that a request names
    return app


class _Api:
    """The endpoints and their shared state."""

    def __init__(
        self,
        model: Model,
        settings: ApiSettings,
        fetcher: Fetcher,
        make_classifier: Callable[[], Classifier],
    ) -> None:
        self._labels = model.labels
        self._settings = settings
        self._fetcher = fetcher
        self._make_classifier = make_classifier
        self._keys = ApiKeys(settings.keys)
        self._rate_limiter = RateLimiter(settings.rate)
        # A share is at least what one request may need.
        memory, queue, downloads = settings.max_memory, settings.queue, settings.fetch_parallel
        self._memory = Budget(memory, max(settings.max_request, memory // 4), "bytes")
        self._queue = Budget(queue, max(settings.max_files, queue // 4), "places in the queue")
        self._downloads = Budget(downloads, max(1, downloads // 4), "downloads")
        self._document = openapi_document(model.labels, settings)
        self._model_info = {
            "recipe": model.info.recipe,
            "compiled": model.info.date,
            "export_sha256": model.info.export_sha256,
        }

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[dict[str, Any]]:
        classifier = self._make_classifier()
        try:
            yield {"classifier": classifier}  # becomes request.state
        finally:
            await classifier.close()

    async def classify(self, request: Request) -> Response:
        client = self._charge_client(request)
        self._check_key(request)
        upload, results = await self._classify_upload(request, client)
        if len(results) == 1:
            return self._answer(results[0])
        photos = [
            {
                "name": photo.name,
                **(
                    {"error": problem(result, request)}
                    if isinstance(result, ImageError)
                    else _prediction_fields(result)
                ),
            }
            for photo, result in zip(upload.photos, results, strict=True)
        ]
        return JSONResponse({"photos": photos, "model": self._model_info})

    async def classify_url(self, request: Request) -> Response:
        client = self._charge_client(request)
        self._check_key(request)
        url = request.query_params.get("url", "")
        if not url:
            raise RequestError(
                "expected a parameter url, got none",
                words="Please add the address of a photo to the query: ?url=…",
            )
        with self._memory.reservation(client) as reserve:
            with self._downloads.reservation(client) as start:
                start(1)
                data = await self._fetcher.fetch(url, reserve)
            [result] = await self._classify(request, client, [data])
        return self._answer(result)

    async def page(self, request: Request) -> Response:
        if request.method != "POST":
            return self._page([])
        # Errors are shown on the page, not returned as JSON: a person is reading.
        try:
            client = self._charge_client(request)
            upload, results = await self._classify_upload(request, client, key_in_form=True)
            if len(results) == 1 and isinstance(results[0], ImageError):
                raise results[0]
        except IconClassifierError as error:
            response = self._page([("", error.words)], status_code(type(error)))
            response.headers.update(error_headers(error))
            return response
        return self._page(
            [
                (photo.name, result.words if isinstance(result, ImageError) else result)
                for photo, result in zip(upload.photos, results, strict=True)
            ]
        )

    async def labels(self, _: Request) -> Response:
        return JSONResponse({"labels": self._labels})

    async def health(self, request: Request) -> Response:
        if request.state.classifier.stalled_seconds > MAX_STALL_SECONDS:
            raise BusyError("photos are in work, and none was finished", words=STALLED)
        return JSONResponse({"status": "ok", "pending": self._queue.used})

    async def openapi(self, request: Request) -> Response:
        servers = [{"url": root_path(request) or "/"}]
        return JSONResponse({**self._document, "servers": servers})

    async def docs(self, _: Request) -> Response:
        return HTMLResponse(docs_page(self._document), headers=PAGE_HEADERS)

    def _charge_client(self, request: Request) -> str:
        """Charge the client of a request for one photo and return its address."""
        peer = request.client.host if request.client else "unknown"
        forwarded = request.headers.getlist("x-forwarded-for")
        client = client_address(peer, forwarded, self._settings.proxies)
        self._rate_limiter.charge(client)  # before the key is checked: limits guessing, too
        return client

    def _check_key(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else None
        self._keys.check(request.headers.get("x-api-key", bearer))

    async def _classify_upload(
        self, request: Request, client: str, *, key_in_form: bool = False
    ) -> tuple[Upload, list[Prediction | ImageError]]:
        with self._memory.reservation(client) as reserve:
            upload = await read_upload(request, self._settings, reserve)
            if key_in_form:
                self._keys.check(upload.fields.get("key"))
            self._rate_limiter.charge(client, len(upload.photos) - 1)
            photos = [photo.data for photo in upload.photos]
            return upload, await self._classify(request, client, photos)

    async def _classify(
        self, request: Request, client: str, photos: Sequence[bytes]
    ) -> list[Prediction | ImageError]:
        """Classify photos as soon as the queue has room for them, within the time for an answer."""
        with self._queue.reservation(client) as reserve:
            reserve(len(photos))
            try:
                async with asyncio.timeout(self._settings.answer_seconds):
                    return list(await request.state.classifier.classify(photos, client))
            except TimeoutError as error:
                raise BusyError(f"no answer within {self._settings.answer_seconds} s") from error

    def _answer(self, result: Prediction | ImageError) -> Response:
        if isinstance(result, ImageError):
            raise result
        return JSONResponse({**_prediction_fields(result), "model": self._model_info})

    def _page(self, results: list[tuple[str, Prediction | str]], status: int = 200) -> Response:
        page = upload_page(
            self._labels,
            needs_key=bool(self._keys),
            max_bytes=self._settings.max_bytes,
            results=results,
        )
        return HTMLResponse(page, status, PAGE_HEADERS)


async def _without_slash(request: Request) -> Response:
    """Redirect to the same address without the slash at its end.

    The redirect is relative, so that a proxy's scheme, host and prefix stay.
    """
    name = request.url.path.rstrip("/").rpartition("/")[2]
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"../{name}{query}", 308)


def _prediction_fields(prediction: Prediction) -> dict[str, Any]:
    return {
        "predictions": [
            {"label": label, "probability": round(probability, 6)}
            for label, probability in prediction.ranking
        ],
        "known": prediction.known,
    }


def app_from_environment(folder: Path | None = None) -> Starlette:
    """Create the app with the options of the environment.

    Parameters
    ----------
    folder : pathlib.Path, optional
        The folder of the model; by default that of the environment.
    """
    settings = ApiSettings.from_environ()
    folder = folder or settings.model
    model = open_model(folder, threads=1, keep_memory=True)
    multithreaded = open_model(folder, threads=settings.threads) if settings.threads > 1 else None
    return create_app(model, settings, multithreaded=multithreaded)


def __getattr__(name: str) -> Any:
    # For ``uvicorn icon_classifier.api.app:app``. A function, so that an import opens no model.
    if name == "app":
        return app_from_environment()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
