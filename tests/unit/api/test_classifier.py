from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import numpy as np
import numpy.typing as npt
import pytest

from icon_classifier.api.classifier import LocalClassifier
from icon_classifier.api.settings import ApiSettings
from icon_classifier.errors import (
    DamagedImageError,
    ImageTooLargeError,
    ModelDamagedError,
    UnsupportedImageError,
)
from icon_classifier.images import read_image
from icon_classifier.model.session import Model, Prediction
from tests.support.models import model_bytes
from tests.support.pictures import encode, gradient

pytestmark = pytest.mark.slow  # each test starts processes

PHOTO = encode(gradient(), "JPEG")


class GatedModel(Model):
    """Counts its photos, and keeps each until its gate is open."""

    def __init__(self, threads: int = 1) -> None:
        super().__init__(model_bytes(), threads)
        self.gate = threading.Event()
        self.gate.set()
        self.started = 0
        self.error: Exception | None = None

    def predict_arrays(
        self, batch: npt.NDArray[np.float32], *, explain: bool = False
    ) -> list[Prediction]:
        self.started += len(batch)
        if not self.gate.wait(20):
            raise TimeoutError
        if self.error is not None:
            raise self.error
        return super().predict_arrays(batch, explain=explain)


@pytest.fixture
def model() -> GatedModel:
    return GatedModel()


@pytest.fixture
def multithreaded() -> GatedModel:
    return GatedModel(2)


@pytest.fixture
async def classifier(
    model: GatedModel, multithreaded: GatedModel
) -> AsyncIterator[LocalClassifier]:
    classifier = LocalClassifier(model, ApiSettings(threads=2), multithreaded)
    yield classifier
    model.gate.set()
    multithreaded.gate.set()
    await classifier.close()


async def decoded(classifier: LocalClassifier, count: int) -> None:
    """Wait until so many photos are decoded and not classified yet."""
    async with asyncio.timeout(20):
        while len(classifier._unfinished) != count:
            await asyncio.sleep(0.001)


async def test_predictions_equal_those_of_the_model(
    classifier: LocalClassifier, model: GatedModel
) -> None:
    photos = [encode(gradient(mode)) for mode in ("RGB", "L", "RGBA")]
    answers = await classifier.classify(photos)
    assert answers == [model.predict(read_image(photo)) for photo in photos]


async def test_photo_that_is_alone_gets_the_multithreaded_model(
    classifier: LocalClassifier, model: GatedModel, multithreaded: GatedModel
) -> None:
    for _ in range(2):
        assert await classifier.classify([PHOTO]) == [model.predict(read_image(PHOTO))]
    assert multithreaded.started == 2


async def test_photos_that_are_not_alone_get_one_core_each(
    classifier: LocalClassifier, model: GatedModel, multithreaded: GatedModel
) -> None:
    model.gate.clear()
    answers = asyncio.create_task(classifier.classify([PHOTO] * 6))
    await decoded(classifier, 6)
    assert (model.started, multithreaded.started) == (2, 0)
    model.gate.set()
    assert len(await answers) == 6
    assert (model.started, multithreaded.started) == (6, 0)


async def test_bad_photo_does_not_affect_the_others(
    classifier: LocalClassifier, model: GatedModel
) -> None:
    good, text, cut = await classifier.classify([PHOTO, b"only text", PHOTO[: len(PHOTO) // 2]])
    assert good == model.predict(read_image(PHOTO))
    assert isinstance(text, UnsupportedImageError)
    assert isinstance(cut, DamagedImageError)


async def test_photo_without_memory_for_the_network_is_an_error_in_its_place(
    classifier: LocalClassifier, multithreaded: GatedModel
) -> None:
    multithreaded.error = ImageTooLargeError("no memory left to run the model")
    assert await classifier.classify([PHOTO]) == [multithreaded.error]


async def test_failure_of_the_model_fails_its_request_and_no_other(
    classifier: LocalClassifier, multithreaded: GatedModel
) -> None:
    multithreaded.error = ModelDamagedError("bad")
    with pytest.raises(ModelDamagedError):
        await classifier.classify([PHOTO])
    multithreaded.error = None
    [answer] = await classifier.classify([PHOTO])
    assert isinstance(answer, Prediction)


async def test_cancelled_photo_that_waits_is_not_classified(
    classifier: LocalClassifier, model: GatedModel
) -> None:
    model.gate.clear()
    kept = asyncio.create_task(classifier.classify([PHOTO] * 2))
    await decoded(classifier, 2)
    cancelled = asyncio.create_task(classifier.classify([PHOTO] * 2))
    await decoded(classifier, 4)
    cancelled.cancel()
    await decoded(classifier, 2)
    model.gate.set()
    assert len(await kept) == 2
    assert model.started == 2


async def test_threads_that_finish_nothing_are_seen(
    classifier: LocalClassifier, model: GatedModel
) -> None:
    assert classifier.stalled_seconds == 0.0
    model.gate.clear()
    stuck = asyncio.create_task(classifier.classify([PHOTO] * 2))
    await decoded(classifier, 2)
    waiting = asyncio.create_task(classifier.classify([PHOTO]))
    await decoded(classifier, 3)
    before = classifier.stalled_seconds
    # Those who give up, waiting or not, are no progress: the threads are still at work.
    waiting.cancel()
    await decoded(classifier, 2)
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)
    assert classifier.stalled_seconds > before > 0.0
    model.gate.set()
    await decoded(classifier, 0)
    assert classifier.stalled_seconds == 0.0
