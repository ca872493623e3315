from __future__ import annotations

import asyncio
import threading

import pytest

from icon_classifier.batching import Batcher, Classifier
from icon_classifier.errors import BusyError, DamagedImageError, UnsupportedImageError
from icon_classifier.images import read_image
from icon_classifier.model import Model
from tests.models import model_bytes
from tests.pictures import encode, gradient

PHOTO = encode(gradient(), "JPEG")


class Recorder:
    """Doubles numbers and remembers the batches; the gate holds it up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        if not self.gate.wait(20):
            raise TimeoutError
        return [2 * item for item in items]


async def test_what_comes_together_goes_together():
    recorder = Recorder()
    batcher = Batcher(recorder, size=16, wait=0.002, threads=2)
    answers = await asyncio.gather(*(batcher.submit(number) for number in range(10)))
    batcher.close()
    assert answers == [2 * number for number in range(10)]
    assert recorder.batches == [list(range(10))]


async def test_a_full_batch_does_not_wait():
    recorder = Recorder()
    batcher = Batcher(recorder, size=4, wait=3600, threads=2)
    async with asyncio.timeout(20):
        await asyncio.gather(*(batcher.submit(number) for number in range(8)))
    batcher.close()
    assert recorder.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]


async def test_no_batch_is_larger_than_the_limit():
    recorder = Recorder()
    batcher = Batcher(recorder, size=4, wait=0.001, threads=1)
    await asyncio.gather(*(batcher.submit(number) for number in range(10)))
    batcher.close()
    assert [len(batch) for batch in recorder.batches] == [4, 4, 2]


async def test_while_it_is_busy_what_comes_collects():
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder, size=16, wait=0.0, threads=1)
    first = asyncio.create_task(batcher.submit(1))
    while not recorder.batches:
        await asyncio.sleep(0)
    rest = [asyncio.create_task(batcher.submit(number)) for number in (2, 3, 4)]
    await asyncio.sleep(0)
    recorder.gate.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8]
    batcher.close()
    assert recorder.batches == [[1], [2, 3, 4]]


async def test_an_error_reaches_everyone_of_the_batch_and_no_one_else():
    def divide(items: list[int]) -> list[float]:
        return [1 / item for item in items]

    batcher = Batcher(divide, size=2, wait=3600, threads=1)
    answers = await asyncio.gather(
        *(batcher.submit(number) for number in (0, 1, 2, 4)), return_exceptions=True
    )
    batcher.close()
    assert [type(answer) for answer in answers[:2]] == [ZeroDivisionError, ZeroDivisionError]
    assert answers[2:] == [0.5, 0.25]


async def test_who_goes_does_not_disturb_the_others():
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder, size=2, wait=3600, threads=1)
    stays, goes = (asyncio.create_task(batcher.submit(number)) for number in (1, 2))
    while not recorder.batches:
        await asyncio.sleep(0)
    goes.cancel()
    recorder.gate.set()
    assert await stays == 2
    batcher.close()


@pytest.fixture
async def model():
    return Model(model_bytes())


async def test_the_same_answer_as_the_model(model):
    classifier = Classifier(model, threads=2)
    photos = [encode(gradient(mode)) for mode in ("RGB", "L", "RGBA")]
    answers = await classifier.classify(photos)
    await classifier.close()
    for photo, answer in zip(photos, answers, strict=True):
        assert answer == model.predict(read_image(photo))


async def test_a_bad_photo_does_not_spoil_the_others(model):
    classifier = Classifier(model)
    good, text, cut = await classifier.classify([PHOTO, b"only text", PHOTO[: len(PHOTO) // 2]])
    await classifier.close()
    assert good == model.predict(read_image(PHOTO))
    assert isinstance(text, UnsupportedImageError)
    assert isinstance(cut, DamagedImageError)


class SlowModel(Model):
    """The real model, held up at a gate."""

    def __init__(self) -> None:
        super().__init__(model_bytes())
        self.gate = threading.Event()

    def predict_arrays(self, batch):
        if not self.gate.wait(20):
            raise TimeoutError
        return super().predict_arrays(batch)


async def test_the_queue_is_bounded():
    model = SlowModel()
    classifier = Classifier(model, queue=3)
    waiting = asyncio.create_task(classifier.classify([PHOTO] * 2))
    await asyncio.sleep(0)
    assert classifier.pending == 2
    with pytest.raises(BusyError):
        await classifier.classify([PHOTO] * 2)
    model.gate.set()
    assert len(await waiting) == 2
    assert classifier.pending == 0
    assert len(await classifier.classify([PHOTO] * 3)) == 3
    await classifier.close()


async def test_whose_time_is_up_keeps_the_place_until_the_thread_is_done():
    model = SlowModel()
    classifier = Classifier(model, queue=1, seconds=0.01)
    with pytest.raises(BusyError, match="no answer"):
        await classifier.classify([PHOTO])
    assert classifier.pending == 1
    with pytest.raises(BusyError, match="wait already"):
        await classifier.classify([PHOTO])
    model.gate.set()
    await classifier.close()
    assert classifier.pending == 0
