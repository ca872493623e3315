from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import numpy as np
import pytest
from PIL import Image

from icon_classifier.api import decoding
from icon_classifier.api.decoding import Decoders
from icon_classifier.errors import (
    TOO_SLOW,
    BusyError,
    DamagedImageError,
    ImageError,
    ImageTooLargeError,
    UnsupportedImageError,
)
from icon_classifier.images import Limits, read_image
from icon_classifier.model.pipeline import Pipeline, Resize
from icon_classifier.system.memory import MAX_GROWTH
from tests.support.pictures import encode, gradient
from tests.support.processes import allocating_less_than

pytestmark = pytest.mark.slow  # each test starts processes

PIPELINE = Pipeline((Resize((32, 24)),))
PHOTO = encode(gradient(), "PNG")
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of processes are Linux's")


@pytest.fixture
async def decoders() -> AsyncIterator[Decoders]:
    decoders = Decoders(PIPELINE, Limits(), 2)
    yield decoders
    await decoders.close()


def process_ids(decoders: Decoders) -> list[int]:
    return [process.pid for process in decoders._processes if process.returncode is None]


async def stopped_process(decoders: Decoders) -> int:
    """Stop the only process, so that the next photo never gets an answer."""
    await decoders.decode(PHOTO, "a")
    [process] = process_ids(decoders)
    os.kill(process, signal.SIGSTOP)
    return process


async def test_pixels_are_those_of_this_process(decoders: Decoders) -> None:
    pixels = await decoders.decode(PHOTO, "a")
    assert pixels.shape == (24, 32, 3)
    assert np.array_equal(pixels, np.asarray(PIPELINE(read_image(PHOTO))))


async def test_photo_becomes_grey_for_a_model_of_grey_photos() -> None:
    decoders = Decoders(PIPELINE, Limits(), 1, "L")
    pixels = await decoders.decode(PHOTO, "a")
    await decoders.close()
    expected = np.asarray(PIPELINE(read_image(PHOTO).convert("L")))
    assert np.array_equal(pixels[..., 0], expected)


@pytest.mark.parametrize(
    ("photo", "kind"),
    [
        (b"only text", UnsupportedImageError),
        (PHOTO[: len(PHOTO) // 2], DamagedImageError),
        (encode(Image.new("1", (8000, 8000))), ImageTooLargeError),
    ],
)
async def test_errors_are_those_of_this_process(
    decoders: Decoders, photo: bytes, kind: type[ImageError]
) -> None:
    with pytest.raises(kind) as expected:
        read_image(photo)
    with pytest.raises(kind) as raised:
        await decoders.decode(photo, "a")
    assert raised.value.words == expected.value.words
    assert len(process_ids(decoders)) == 1


async def test_photo_whose_process_dies_is_an_error_and_the_next_gets_another(
    decoders: Decoders,
) -> None:
    process = await stopped_process(decoders)
    photo = asyncio.create_task(decoders.decode(PHOTO, "a"))
    await asyncio.sleep(0)
    os.kill(process, signal.SIGKILL)
    with pytest.raises(ImageError, match="signal 9"):
        await photo
    assert (await decoders.decode(PHOTO, "a")).shape == (24, 32, 3)
    assert process not in process_ids(decoders)


async def test_photo_that_took_too_long_is_called_so(decoders: Decoders) -> None:
    process = await stopped_process(decoders)
    photo = asyncio.create_task(decoders.decode(PHOTO, "a"))
    await asyncio.sleep(0)
    os.kill(process, signal.SIGALRM)  # as the process itself asked for
    os.kill(process, signal.SIGCONT)
    with pytest.raises(ImageTooLargeError) as error:
        await photo
    assert error.value.words == TOO_SLOW


async def test_photo_is_not_copied_for_its_process(decoders: Decoders) -> None:
    photo = bytes(20_000_000)
    with allocating_less_than(5_000_000), pytest.raises(UnsupportedImageError):
        await decoders.decode(photo, "a")


async def test_process_that_died_while_idle_costs_no_photo(decoders: Decoders) -> None:
    await decoders.decode(PHOTO, "a")
    [process] = decoders._processes
    process.kill()
    await process.wait()
    assert (await decoders.decode(PHOTO, "a")).shape == (24, 32, 3)


async def test_cancelled_photo_leaves_no_answer_for_the_next(decoders: Decoders) -> None:
    process = await stopped_process(decoders)
    photo = asyncio.create_task(decoders.decode(encode(Image.new("RGB", (50, 50), "red")), "a"))
    await asyncio.sleep(0)
    photo.cancel()
    await asyncio.gather(photo, return_exceptions=True)
    assert np.array_equal(
        await decoders.decode(PHOTO, "a"), np.asarray(PIPELINE(read_image(PHOTO)))
    )
    assert process not in process_ids(decoders)


async def test_others_are_answered_while_all_photos_of_one_client_are_stuck(
    decoders: Decoders,
) -> None:
    await stopped_process(decoders)
    stuck = [asyncio.create_task(decoders.decode(PHOTO, "a")) for _ in range(4)]
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        assert (await decoders.decode(PHOTO, "b")).shape == (24, 32, 3)
    for photo in stuck:
        photo.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)


async def test_clients_share_two_processes(decoders: Decoders) -> None:
    photos = [asyncio.create_task(decoders.decode(PHOTO, "a")) for _ in range(2)]
    await asyncio.sleep(0)
    assert decoders._running == {"a": 1}
    photos += [asyncio.create_task(decoders.decode(PHOTO, client)) for client in "bc"]
    await asyncio.sleep(0)
    assert decoders._running == {"a": 1, "b": 1}
    await asyncio.gather(*photos)
    assert len(process_ids(decoders)) == 2


async def test_process_that_cannot_start_is_no_fault_of_the_photo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding.sys, "executable", "/nowhere/python")
    with pytest.raises(BusyError):
        await Decoders(PIPELINE, Limits(), 1).decode(PHOTO, "a")
    monkeypatch.undo()
    monkeypatch.setitem(decoding._ENVIRONMENT, "PYTHONHOME", "/nowhere")
    with pytest.raises(BusyError, match="exit code"):
        await Decoders(PIPELINE, Limits(), 1).decode(PHOTO, "a")


async def test_close_ends_a_photo_in_progress() -> None:
    decoders = Decoders(PIPELINE, Limits(), 2)
    process = await stopped_process(decoders)
    photo = asyncio.create_task(decoders.decode(PHOTO, "a"))
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await decoders.close()
    with pytest.raises(ImageError):
        await photo
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@linux
async def test_process_has_limits_of_memory_and_writes_no_core(decoders: Decoders) -> None:
    import resource

    await decoders.decode(PHOTO, "a")
    [process] = process_ids(decoders)
    soft, hard = resource.prlimit(process, resource.RLIMIT_DATA)
    assert MAX_GROWTH < soft == hard < 2 * MAX_GROWTH
    assert resource.prlimit(process, resource.RLIMIT_CORE) == (0, 0)


def run_process(read_image: str) -> subprocess.CompletedProcess[bytes]:
    """Send a photo to a process that reads it by this expression, within a second at most."""
    program = (
        "from icon_classifier.api import decoding; decoding.MAX_SECONDS = 1; "
        f"decoding.read_image = lambda photo, limits: {read_image}; decoding.main()"
    )
    settings = {"mode": "RGB", "transforms": PIPELINE.to_json(), "limits": {}}
    question = json.dumps(settings).encode() + b"\n" + len(PHOTO).to_bytes(4) + PHOTO
    return subprocess.run([sys.executable, "-c", program], input=question, capture_output=True)


@linux
def test_picture_beyond_the_memory_is_too_large() -> None:
    done = run_process("bytearray(300 * 2**20)")
    assert done.returncode == 0
    assert b"ImageTooLargeError" in done.stdout


@linux
def test_photo_past_its_time_ends_the_process() -> None:
    done = run_process("sum(range(10**18))")  # which no handler in Python could interrupt
    assert (done.returncode, done.stdout) == (-signal.SIGALRM, b"")


def test_what_a_library_prints_is_no_answer() -> None:
    done = run_process("print('pixels', flush=True)")
    assert b"pixels" not in done.stdout
    assert b"pixels" in done.stderr
