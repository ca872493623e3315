"""Decode photos in processes of their own, which end when a photo costs too much.

Run as a module, this file is such a process. It is not forked: the server has threads, and not
every system can fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icon_classifier import errors
from icon_classifier.errors import TOO_SLOW, BusyError, ImageError, ImageTooLargeError
from icon_classifier.images import Limits, read_image
from icon_classifier.model.pipeline import Pipeline
from icon_classifier.system.memory import MAX_DECODING, limit_process, limited_growth

MAX_SECONDS = 15
"""How long decoding a photo may take. Of the time on the clock, since that is what others wait; a
photo within the limits takes less than two seconds of a core."""

_KEPT_MEMORY = 32 * 2**20
"""Bytes that glibc keeps for the next photo; with its default it returns most of them each time,
and clearing their pages again takes a third of the time of decoding."""

_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(_KEPT_MEMORY),
    "MALLOC_TRIM_THRESHOLD_": str(_KEPT_MEMORY),
    "OPENBLAS_NUM_THREADS": "1",
}

_PIECE = 2**20
"""Bytes of a photo that are passed to a process at a time."""

_HEADER = struct.Struct("!?I")
"""Precedes an answer: whether it holds pixels, not an error; its length in bytes."""

_PACKAGES = Path(__file__).resolve().parents[2]


class Decoders:
    """Processes that decode photos; each is started when all others are in use.

    The client with the fewest photos being decoded goes first. One client never uses all processes,
    unless there is only one. For use from one event loop.

    Parameters
    ----------
    pipeline : Pipeline
        The transforms of the model.
    limits : Limits
        What a photo may cost.
    processes : int
        Maximum number of processes.
    mode : {'RGB', 'L'}
        Mode of the photos that the model takes.
    """

    def __init__(
        self, pipeline: Pipeline, limits: Limits, processes: int, mode: str = "RGB"
    ) -> None:
        settings = {
            "mode": mode,
            "transforms": pipeline.to_json(),
            "limits": dataclasses.asdict(limits),
        }
        self._settings = json.dumps(settings).encode() + b"\n"
        self._size = pipeline.size
        self._max_processes = processes
        self._max_per_client = max(1, processes - 1)
        self._processes: set[asyncio.subprocess.Process] = set()
        self._idle: list[asyncio.subprocess.Process] = []
        self._running: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    async def decode(self, photo: bytes, client: str) -> npt.NDArray[np.uint8]:
        """Decode a photo and apply the transforms.

        Parameters
        ----------
        photo : bytes
            The file as it was received.
        client : str
            Who sent it.

        Returns
        -------
        numpy.ndarray
            uint8, shape (H, W, 3), or (H, W, 1) for a model of grey photos.

        Raises
        ------
        ImageError
            If the photo cannot be used.
        BusyError
            If no process can be started.
        """
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((client, slot))
        self._start_next()
        try:
            await slot
            pixels = await self._decode(photo)
        finally:
            if not slot.cancelled():
                self._running -= Counter([client])  # keeps no client without photos
            self._start_next()
        return np.frombuffer(pixels, np.uint8).reshape(*self._size[::-1], -1)

    async def close(self) -> None:
        """End all processes; photos that are being decoded fail."""
        for process in self._processes:
            _kill(process)
        await asyncio.gather(*(process.wait() for process in self._processes))

    def _start_next(self) -> None:
        self._waiting = [entry for entry in self._waiting if not entry[1].done()]
        while self._waiting and self._running.total() < self._max_processes:
            first = min(self._waiting, key=lambda entry: self._running[entry[0]])
            client, slot = first
            if self._running[client] >= self._max_per_client:
                return
            self._waiting.remove(first)
            self._running[client] += 1
            slot.set_result(None)

    async def _decode(self, photo: bytes) -> bytes:
        process = await self._take_process()
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(len(photo).to_bytes(4))
            for start in range(0, len(photo), _PIECE):  # asyncio copies what does not fit the pipe
                process.stdin.write(memoryview(photo)[start : start + _PIECE])
                await process.stdin.drain()
            decoded, length = _HEADER.unpack(await process.stdout.readexactly(_HEADER.size))
            answer = await process.stdout.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise await _death(process) from error
        except BaseException:  # cancelled: its answer must not become that of the next photo
            _kill(process)
            raise
        self._idle.append(process)
        if decoded:
            return answer
        kind, message, words = json.loads(answer)
        raise getattr(errors, kind)(message, words=words)

    async def _take_process(self) -> asyncio.subprocess.Process:
        """Take an idle process or start one; those that died meanwhile are forgotten."""
        self._processes = {process for process in self._processes if process.returncode is None}
        while self._idle:
            process = self._idle.pop()
            if process in self._processes:
                return process
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "icon_classifier.api.decoding"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | _ENVIRONMENT,
                limit=2**20,  # about the size of an answer, which is then read without pauses
                cwd=_PACKAGES,  # -m looks in the current folder first
            )
        except OSError as error:
            raise BusyError(f"no process can be started for decoding: {error}") from error
        self._processes.add(process)
        assert process.stdin
        process.stdin.write(self._settings)
        return process


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def _death(process: asyncio.subprocess.Process) -> ImageError | BusyError:
    """Wait for the end of a process and return the error for its photo."""
    code = await process.wait()
    if code >= 0:
        return BusyError(f"the process for decoding failed with exit code {code}")
    if code == -getattr(signal, "SIGALRM", 0):
        return ImageTooLargeError(f"decoding took longer than {MAX_SECONDS} s", words=TOO_SLOW)
    return ImageError(f"the process for decoding was ended by signal {-code}")


def main() -> None:
    """Answer each photo from standard input with its pixels or an error, until that is closed."""
    settings = json.loads(sys.stdin.buffer.readline())
    pipeline, limits = Pipeline.from_json(settings["transforms"]), Limits(**settings["limits"])
    mode = settings["mode"]
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the server
    limit_process()
    while header := sys.stdin.buffer.read(4):
        photo = sys.stdin.buffer.read(int.from_bytes(header))
        _set_alarm(MAX_SECONDS)
        decoded, answer = _answer(photo, mode, pipeline, limits)
        _set_alarm(0)
        answers.write(_HEADER.pack(decoded, len(answer)))
        answers.write(answer)
        answers.flush()


def _answer(photo: bytes, mode: str, pipeline: Pipeline, limits: Limits) -> tuple[bool, bytes]:
    try:
        with limited_growth(MAX_DECODING):
            image = read_image(photo, limits)
            if image.mode != mode:  # fastai makes a photo grey before all else
                image = image.convert(mode)
            return True, np.asarray(pipeline(image)).tobytes()
    except MemoryError:
        error: ImageError = ImageTooLargeError("decoding needs more memory than it may take")
    except ImageError as raised:
        error = raised
    return False, json.dumps([type(error).__name__, str(error), error.words]).encode()


def _set_alarm(seconds: int) -> None:
    """End this process after so many seconds; 0: do not."""
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(seconds)


if __name__ == "__main__":
    main()
