"""The Starlette app of the fastai course, which calls the Learner in the request handler."""

from __future__ import annotations

import io

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from icon_classifier.system.torch_setup import import_fastai
from tests.support.servers import ROOT

import_fastai()

from fastai.vision.all import PILImage, load_learner  # noqa: E402 - after import_fastai

learn = load_learner(ROOT / "export.pkl", cpu=True)


async def classify(request: Request) -> Response:
    form = await request.form()
    photo = PILImage.create(io.BytesIO(await form["file"].read()))
    with learn.no_bar(), learn.no_logging():
        _, _, probabilities = learn.predict(photo)
    pairs = zip(learn.dls.vocab, map(float, probabilities), strict=True)
    ranking = sorted(pairs, key=lambda pair: pair[1], reverse=True)
    return JSONResponse({"predictions": ranking})


async def health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


app = Starlette(routes=[Route("/classify", classify, methods=["POST"]), Route("/healthz", health)])
