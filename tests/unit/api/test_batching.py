from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from icon_classifier.api.batching import Batcher, Classifier
from icon_classifier.errors import BusyError, DamagedImageError, UnsupportedImageError
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
    """Doubles numbers and remembers the batches; the gate holds it up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.alone: list[bool] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: list[int], alone: bool) -> list[int]:
        self.batches.append(items)
        self.alone.append(alone)
        if not self.gate.wait(20):
            raise TimeoutError
        return [2 * item for item in items]


async def soon(item: int, event: asyncio.Event | None = None) -> int:
    """Something that is being decoded, until the event or for a turn of the loop."""
    await (event.wait() if event else asyncio.sleep(0))
    return item


async def test_what_comes_together_goes_together_over_all_threads(pool):
    recorder = Recorder()
    batcher = Batcher(recorder, pool, size=16, step=16, wait=3600, threads=2)
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(batcher.submit(soon(number)) for number in range(10)))
    assert answers == [2 * number for number in range(10)]
    assert sorted(recorder.batches) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert recorder.alone == [False, False]


async def test_one_alone_waits_for_nobody_and_is_told(pool):
    recorder = Recorder()
    batcher = Batcher(recorder, pool, size=16, step=16, wait=3600, threads=2)
    async with asyncio.timeout(20):
        assert [await batcher.submit(soon(number)) for number in (1, 2)] == [2, 4]
    assert recorder.batches == [[1], [2]]
    assert recorder.alone == [True, True]


async def test_others_that_are_coming_are_waited_for_but_not_longer_than_a_moment(pool):
    recorder = Recorder()
    batcher = Batcher(recorder, pool, size=16, step=16, wait=0.002, threads=1)
    event = asyncio.Event()
    late = asyncio.create_task(batcher.submit(soon(3, event)))
    assert await asyncio.gather(*(batcher.submit(soon(number)) for number in (1, 2))) == [2, 4]
    event.set()
    assert await late == 6
    assert recorder.batches == [[1, 2], [3]]
    assert recorder.alone == [False, True]


async def test_one_that_does_not_come_is_waited_for_no_longer(pool):
    async def fail() -> int:
        await asyncio.sleep(0)
        raise DamagedImageError("cut")

    recorder = Recorder()
    batcher = Batcher(recorder, pool, size=16, step=16, wait=3600, threads=1)
    async with asyncio.timeout(20):
        answers = await asyncio.gather(
            batcher.submit(soon(1)), batcher.submit(fail()), return_exceptions=True
        )
    assert answers[0] == 2
    assert isinstance(answers[1], DamagedImageError)


async def test_a_full_batch_does_not_wait(pool):
    recorder = Recorder()
    batcher = Batcher(recorder, pool, size=4, step=4, wait=3600, threads=1)
    event = asyncio.Event()
    late = asyncio.create_task(batcher.submit(soon(9, event)))
    async with asyncio.timeout(20):
        await asyncio.gather(*(batcher.submit(soon(number)) for number in range(8)))
    event.set()
    await late
    assert recorder.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [9]]


async def test_each_thread_takes_a_step_at_a_time(pool):
    recorder = Recorder()
    batcher = Batcher(recorder, pool, size=16, step=2, wait=3600, threads=2)
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(batcher.submit(soon(number)) for number in range(7)))
    assert answers == [2 * number for number in range(7)]
    assert sorted(recorder.batches) == [[0, 1], [2, 3], [4, 5], [6]]


async def test_no_batch_is_larger_than_the_limit(pool):
    recorder = Recorder()
    batcher = Batcher(recorder, pool, size=4, step=4, wait=0.001, threads=1)
    await asyncio.gather(*(batcher.submit(soon(number)) for number in range(10)))
    assert [len(batch) for batch in recorder.batches] == [4, 4, 2]


async def test_while_it_is_busy_what_comes_collects(pool):
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder, pool, size=16, step=16, wait=0.0, threads=1)
    first = asyncio.create_task(batcher.submit(soon(1)))
    while not recorder.batches:
        await asyncio.sleep(0)
    rest = [asyncio.create_task(batcher.submit(soon(number))) for number in (2, 3, 4)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    recorder.gate.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8]
    assert recorder.batches == [[1], [2, 3, 4]]


async def test_an_error_reaches_everyone_of_the_batch_and_no_one_else(pool):
    def divide(items: list[int], _: bool) -> list[float]:
        return [1 / item for item in items]

    batcher = Batcher(divide, pool, size=2, step=2, wait=3600, threads=1)
    answers = await asyncio.gather(
        *(batcher.submit(soon(number)) for number in (0, 1, 2, 4)), return_exceptions=True
    )
    assert [type(answer) for answer in answers[:2]] == [ZeroDivisionError, ZeroDivisionError]
    assert answers[2:] == [0.5, 0.25]


async def test_who_goes_does_not_disturb_the_others(pool):
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder, pool, size=2, step=2, wait=3600, threads=1)
    stays, goes = (asyncio.create_task(batcher.submit(soon(number))) for number in (1, 2))
    while not recorder.batches:
        await asyncio.sleep(0)
    goes.cancel()
    recorder.gate.set()
    assert await stays == 2


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


async def test_one_alone_is_for_the_model_of_many_threads(model):
    class Quick(Model):
        asked = 0

        def predict_arrays(self, batch):
            self.asked += len(batch)
            return super().predict_arrays(batch)

    quick = Quick(model_bytes(), 2)
    classifier = Classifier(model, quick=quick, threads=2)
    assert await classifier.classify([PHOTO]) == [model.predict(read_image(PHOTO))]
    assert quick.asked == 1
    await classifier.classify([PHOTO] * 8)
    assert quick.asked == 1
    await classifier.close()


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
