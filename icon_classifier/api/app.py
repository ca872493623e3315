"""The JSON API: a Starlette app around one model.

Run it by ``icon-classifier api``, or by ``uvicorn icon_classifier.api.app:app``, which reads its
options from the environment (:class:`~icon_classifier.api.settings.ApiSettings`).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from icon_classifier.api.addresses import client_of
from icon_classifier.api.batching import Classifier, Classifies
from icon_classifier.api.fetch import Fetcher
from icon_classifier.api.limits import ApiKeys, Budget, RateLimiter
from icon_classifier.api.openapi import describe
from icon_classifier.api.pages import HEADERS, docs_page, upload_page
from icon_classifier.api.problems import HANDLERS, problem
from icon_classifier.api.settings import ApiSettings
from icon_classifier.api.uploads import Upload, read_upload
from icon_classifier.errors import BusyError, IconClassifierError, RequestError
from icon_classifier.model.opening import open_model
from icon_classifier.model.session import Model, Prediction


def create_app(
    model: Model,
    settings: ApiSettings | None = None,
    *,
    quick: Model | None = None,
    fetcher: Fetcher | None = None,
    classifier: Callable[[], Classifies] | None = None,
) -> Starlette:
    """Build the app.

    Parameters
    ----------
    model : Model
        What classifies.
    settings : ApiSettings, optional
        The limits.
    quick : Model, optional
        The same model opened with several threads, for the photo that comes alone.
    fetcher : Fetcher, optional
        What fetches photos from addresses.
    classifier : callable, optional
        Makes what classifies when the app starts; by default threads of this process.

    Returns
    -------
    starlette.applications.Starlette
        An ASGI application; its threads start with its lifespan and end with it.
    """
    settings = settings or ApiSettings()
    api = _Api(
        model,
        settings,
        fetcher or Fetcher(settings),
        classifier or (lambda: local_classifier(model, settings, quick)),
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
    middleware = []
    if settings.cors_origins:
        allowed = ["Authorization", "Content-Type", "X-API-Key"]
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST"],
                allow_headers=allowed,
                expose_headers=["Retry-After"],
            )
        )
    return Starlette(
        routes=routes, middleware=middleware, exception_handlers=HANDLERS, lifespan=api.lifespan
    )


def local_classifier(model: Model, settings: ApiSettings, quick: Model | None = None) -> Classifier:
    """Make what classifies in threads of this process."""
    return Classifier(
        model,
        quick=quick,
        limits=settings.limits,
        queue=settings.queue,
        batch=settings.batch,
        step=settings.step,
        wait=settings.batch_wait,
        threads=settings.threads,
        seconds=settings.answer_seconds,
    )


class _Api:
    """The endpoints, and what they share."""

    def __init__(
        self,
        model: Model,
        settings: ApiSettings,
        fetcher: Fetcher,
        make_classifier: Callable[[], Classifies],
    ) -> None:
        self._model = model
        self._settings = settings
        self._fetcher = fetcher
        self._make_classifier = make_classifier
        self._keys = ApiKeys(settings.keys)
        self._rate = RateLimiter(settings.rate)
        self._budget = Budget(settings.max_memory)
        self._description = describe(model.labels, settings)
        self._about = {
            "recipe": model.info.recipe,
            "date": model.info.date,
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
        client = self._admit(request)
        self._check_key(request)
        upload, answers = await self._classify_upload(request, client)
        if len(answers) == 1:
            [answer] = answers
            if isinstance(answer, IconClassifierError):
                raise answer
            return JSONResponse({**_shown(answer), "model": self._about})
        photos = [
            {
                "name": photo.name,
                **(
                    {"error": problem(answer)}
                    if isinstance(answer, IconClassifierError)
                    else _shown(answer)
                ),
            }
            for photo, answer in zip(upload.photos, answers, strict=True)
        ]
        return JSONResponse({"photos": photos, "model": self._about})

    async def classify_url(self, request: Request) -> Response:
        self._admit(request)
        self._check_key(request)
        url = request.query_params.get("url", "")
        if not url:
            raise RequestError(
                "no url in the query", words="Please give the address of a photo as ?url=…"
            )
        with self._budget.hold() as take:
            data = await self._fetcher.fetch(url)
            take(len(data))
            [answer] = await request.state.classifier.classify([data])
        if isinstance(answer, IconClassifierError):
            raise answer
        return JSONResponse({**_shown(answer), "model": self._about})

    async def page(self, request: Request) -> Response:
        return await self._page_answer(request) if request.method == "POST" else self._page([])

    async def _page_answer(self, request: Request) -> Response:
        # The page tells its errors itself: somebody sits in front of it.
        try:
            client = self._admit(request)
            upload, answers = await self._classify_upload(request, client, key_in_form=True)
            if len(answers) == 1 and isinstance(answers[0], IconClassifierError):
                raise answers[0]
        except IconClassifierError as error:
            response = self._page([("", error.words)], problem(error)["status"])
            if isinstance(error, BusyError):
                response.headers["Retry-After"] = str(error.retry_after)
            return response
        shown = [
            (photo.name, answer.words if isinstance(answer, IconClassifierError) else answer)
            for photo, answer in zip(upload.photos, answers, strict=True)
        ]
        return self._page(shown)

    async def labels(self, _: Request) -> Response:
        return JSONResponse({"labels": self._model.labels})

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "pending": request.state.classifier.pending})

    async def openapi(self, _: Request) -> Response:
        return JSONResponse(self._description)

    async def docs(self, _: Request) -> Response:
        return HTMLResponse(docs_page(self._description), headers=HEADERS)

    def _admit(self, request: Request) -> str:
        """Charge a request to its client and say who that is."""
        peer = request.client.host if request.client else "unknown"
        forwarded = request.headers.getlist("x-forwarded-for")
        client = client_of(peer, forwarded, self._settings.proxies)
        self._rate.take(client)  # before the key: guessing keys costs too
        return client

    def _check_key(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else None
        self._keys.check(request.headers.get("x-api-key", bearer))

    async def _classify_upload(
        self, request: Request, client: str, *, key_in_form: bool = False
    ) -> tuple[Upload, list[Any]]:
        with self._budget.hold() as take:
            upload = await read_upload(request, self._settings, take)
            if key_in_form:
                self._keys.check(upload.fields.get("key"))
            self._rate.take(client, len(upload.photos) - 1)
            photos = [photo.data for photo in upload.photos]
            return upload, await request.state.classifier.classify(photos)

    def _page(self, answers: list[tuple[str, Prediction | str]], status: int = 200) -> Response:
        page = upload_page(
            self._model.labels,
            asks_key=bool(self._keys),
            max_bytes=self._settings.max_bytes,
            answers=answers,
        )
        return HTMLResponse(page, status, HEADERS)


def _shown(prediction: Prediction) -> dict[str, Any]:
    return {
        "predictions": [
            {"label": label, "probability": round(probability, 6)}
            for label, probability in prediction.ranking
        ],
        "known": prediction.known,
    }


def app_from_environment(folder: Path | None = None) -> Starlette:
    """Build the app with the options of the environment.

    Parameters
    ----------
    folder : pathlib.Path, optional
        Where the model lies, if not where the environment says.
    """
    settings = ApiSettings.from_environ()
    folder = folder or settings.model
    model = open_model(folder, threads=1, keep_memory=True)
    quick = open_model(folder, threads=settings.threads) if settings.threads > 1 else None
    return create_app(model, settings, quick=quick)


def __getattr__(name: str) -> Any:
    # For ``uvicorn icon_classifier.api.app:app``: the model is opened when it is asked for, so that
    # importing this module opens nothing.
    if name == "app":
        return app_from_environment()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
