from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from icon_classifier.api.batching import Batcher, LocalClassifier
from icon_classifier.api.settings import ApiSettings
from icon_classifier.errors import DamagedImageError, UnsupportedImageError
from icon_classifier.images import read_image
from icon_classifier.model.session import Model
from tests.support.models import model_bytes
from tests.support.pictures import encode, gradient

PHOTO = encode(gradient(), "JPEG")


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


class Recorder:
    """Doubles numbers and records the batches; a closed gate blocks it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.only_work: list[bool] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: list[int], only_work: bool) -> list[int]:
        self.batches.append(items)
        self.only_work.append(only_work)
        if not self.gate.wait(20):
            raise TimeoutError
        return [2 * item for item in items]


async def prepared(item: int, event: asyncio.Event | None = None) -> int:
    """Return an item after the event or one iteration of the loop, as if it was decoded."""
    await (event.wait() if event else asyncio.sleep(0))
    return item


async def test_items_that_arrive_together_are_divided_among_the_threads(pool):
    recorder = Recorder()
    batcher = Batcher(recorder, pool, batch_size=16, step_size=16, max_wait=3600, threads=2)
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(batcher.submit(prepared(number)) for number in range(10)))
    assert answers == [2 * number for number in range(10)]
    assert sorted(recorder.batches) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert recorder.only_work == [False, False]


async def test_single_item_does_not_wait_and_is_the_only_work(pool):
    recorder = Recorder()
    batcher = Batcher(recorder, pool, batch_size=16, step_size=16, max_wait=3600, threads=2)
    async with asyncio.timeout(20):
        assert [await batcher.submit(prepared(number)) for number in (1, 2)] == [2, 4]
    assert recorder.batches == [[1], [2]]
    assert recorder.only_work == [True, True]


async def test_item_waits_for_others_no_longer_than_the_maximum(pool):
    recorder = Recorder()
    batcher = Batcher(recorder, pool, batch_size=16, step_size=16, max_wait=0.002, threads=1)
    event = asyncio.Event()
    late = asyncio.create_task(batcher.submit(prepared(3, event)))
    assert await asyncio.gather(*(batcher.submit(prepared(number)) for number in (1, 2))) == [2, 4]
    event.set()
    assert await late == 6
    assert recorder.batches == [[1, 2], [3]]
    assert recorder.only_work == [False, True]


async def test_failed_preparation_ends_the_wait_of_others(pool):
    async def fail() -> int:
        await asyncio.sleep(0)
        raise DamagedImageError("cut")

    recorder = Recorder()
    batcher = Batcher(recorder, pool, batch_size=16, step_size=16, max_wait=3600, threads=1)
    async with asyncio.timeout(20):
        answers = await asyncio.gather(
            batcher.submit(prepared(1)), batcher.submit(fail()), return_exceptions=True
        )
    assert answers[0] == 2
    assert isinstance(answers[1], DamagedImageError)


async def test_full_batch_does_not_wait(pool):
    recorder = Recorder()
    batcher = Batcher(recorder, pool, batch_size=4, step_size=4, max_wait=3600, threads=1)
    event = asyncio.Event()
    late = asyncio.create_task(batcher.submit(prepared(9, event)))
    async with asyncio.timeout(20):
        await asyncio.gather(*(batcher.submit(prepared(number)) for number in range(8)))
    event.set()
    await late
    assert recorder.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [9]]


async def test_each_thread_takes_one_step_at_a_time(pool):
    recorder = Recorder()
    batcher = Batcher(recorder, pool, batch_size=16, step_size=2, max_wait=3600, threads=2)
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(batcher.submit(prepared(number)) for number in range(7)))
    assert answers == [2 * number for number in range(7)]
    assert sorted(recorder.batches) == [[0, 1], [2, 3], [4, 5], [6]]


async def test_batch_is_not_larger_than_the_maximum(pool):
    recorder = Recorder()
    batcher = Batcher(recorder, pool, batch_size=4, step_size=4, max_wait=0.001, threads=1)
    await asyncio.gather(*(batcher.submit(prepared(number)) for number in range(10)))
    assert [len(batch) for batch in recorder.batches] == [4, 4, 2]


async def test_items_that_arrive_meanwhile_form_one_batch(pool):
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder, pool, batch_size=16, step_size=16, max_wait=0.0, threads=1)
    first = asyncio.create_task(batcher.submit(prepared(1)))
    while not recorder.batches:
        await asyncio.sleep(0)
    rest = [asyncio.create_task(batcher.submit(prepared(number))) for number in (2, 3, 4)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    recorder.gate.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8]
    assert recorder.batches == [[1], [2, 3, 4]]


async def test_error_fails_all_items_of_its_batch_and_no_other(pool):
    def divide(items: list[int], _: bool) -> list[float]:
        return [1 / item for item in items]

    batcher = Batcher(divide, pool, batch_size=2, step_size=2, max_wait=3600, threads=1)
    answers = await asyncio.gather(
        *(batcher.submit(prepared(number)) for number in (0, 1, 2, 4)), return_exceptions=True
    )
    assert [type(answer) for answer in answers[:2]] == [ZeroDivisionError, ZeroDivisionError]
    assert answers[2:] == [0.5, 0.25]


async def test_cancelled_item_does_not_affect_the_others(pool):
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder, pool, batch_size=2, step_size=2, max_wait=3600, threads=1)
    kept, cancelled = (asyncio.create_task(batcher.submit(prepared(number))) for number in (1, 2))
    while not recorder.batches:
        await asyncio.sleep(0)
    cancelled.cancel()
    recorder.gate.set()
    assert await kept == 2


@pytest.fixture
async def model():
    return Model(model_bytes())


async def test_predictions_equal_those_of_the_model(model):
    classifier = LocalClassifier(model, ApiSettings(threads=2))
    photos = [encode(gradient(mode)) for mode in ("RGB", "L", "RGBA")]
    answers = await classifier.classify(photos)
    await classifier.close()
    for photo, answer in zip(photos, answers, strict=True):
        assert answer == model.predict(read_image(photo))


async def test_multithreaded_model_gets_only_photos_that_are_alone(model):
    class Recording(Model):
        def __init__(self) -> None:
            super().__init__(model_bytes(), 2)
            self.sizes = []

        def predict_arrays(self, batch):
            self.sizes.append(len(batch))
            return super().predict_arrays(batch)

    multithreaded = Recording()
    classifier = LocalClassifier(model, ApiSettings(threads=2), multithreaded)
    assert await classifier.classify([PHOTO]) == [model.predict(read_image(PHOTO))]
    assert multithreaded.sizes == [1]
    # The last of several may be alone again, on a machine that is slow to start the others.
    await classifier.classify([PHOTO] * 8)
    assert set(multithreaded.sizes) == {1}
    pixels = np.asarray(model.info.pipeline(read_image(PHOTO)))
    multithreaded.sizes.clear()
    assert len(classifier._predict([pixels], only_work=False)) == 1
    assert len(classifier._predict([pixels, pixels], only_work=True)) == 2
    assert multithreaded.sizes == []
    await classifier.close()


async def test_bad_photo_does_not_affect_the_others(model):
    classifier = LocalClassifier(model, ApiSettings(threads=1))
    good, text, cut = await classifier.classify([PHOTO, b"only text", PHOTO[: len(PHOTO) // 2]])
    await classifier.close()
    assert good == model.predict(read_image(PHOTO))
    assert isinstance(text, UnsupportedImageError)
    assert isinstance(cut, DamagedImageError)


async def test_threads_that_finish_nothing_are_seen(pool):
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder, pool, batch_size=2, step_size=2, max_wait=3600, threads=2)
    assert batcher.stalled_seconds == 0.0
    waiting = asyncio.create_task(batcher.submit(prepared(1)))
    while not recorder.batches:
        await asyncio.sleep(0)
    before = batcher.stalled_seconds
    assert batcher.stalled_seconds > before > 0.0
    waiting.cancel()  # its client no longer waits, but the thread is still at work
    await asyncio.sleep(0)
    assert batcher.stalled_seconds > before
    recorder.gate.set()
    while batcher.stalled_seconds:
        await asyncio.sleep(0)
