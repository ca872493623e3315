"""Photos of many requests go through the network together, off the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from icon_classifier.errors import BusyError, ImageError
from icon_classifier.images import Limits, read_image
from icon_classifier.model import Model, Prediction

__all__ = ["Batcher", "Classifier", "Classifies"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Collects what arrives within a moment and hands it to a thread as one batch.

    While all threads are busy, what arrives goes on collecting: the busier it is, the larger the
    batches. To be used from one event loop.

    Parameters
    ----------
    run : callable
        Called in a thread with at most `size` items; gives one answer for each, in order.
    size : int
        Items in a batch at most.
    wait : float
        Seconds that the first item of a batch waits for others.
    threads : int
        Batches in work at the same time.
    """

    def __init__(
        self, run: Callable[[list[Item]], Sequence[Answer]], *, size: int, wait: float, threads: int
    ) -> None:
        self._run = run
        self._size = size
        self._wait = wait
        self._free = threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="infer")
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due = False

    async def submit(self, item: Item) -> Answer:
        """Wait for the answer to one item; what `run` raises is raised here."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, future))
        if self._timer is None:
            self._timer = loop.call_later(self._wait, self._on_time)
        self._dispatch()
        return await future

    def close(self) -> None:
        """Wait for the batches in work and end the threads."""
        self._threads.shutdown()

    def _on_time(self) -> None:
        self._timer = None
        self._due = True
        self._dispatch()

    def _dispatch(self) -> None:
        """Hand over as many batches as are full or due while threads are free."""
        while self._free and self._waiting and (self._due or len(self._waiting) >= self._size):
            count = min(self._size, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            self._free -= 1
            work = asyncio.get_running_loop().run_in_executor(
                self._threads, self._run, [item for item, _ in batch]
            )
            work.add_done_callback(lambda done, batch=batch: self._on_done(done, batch))  # type: ignore[misc]
        if not self._waiting:
            self._due = False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _on_done(
        self,
        work: asyncio.Future[Sequence[Answer]],
        batch: list[tuple[Item, asyncio.Future[Answer]]],
    ) -> None:
        self._free += 1
        error = work.exception()
        answers = [None] * len(batch) if error is not None else work.result()
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():  # whoever asked has gone
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(answer)  # type: ignore[arg-type]
        self._dispatch()


class Classifies(Protocol):
    """What the API needs: this :class:`Classifier`, or one of another machine."""

    @property
    def pending(self) -> int:
        """Photos that wait or are in work."""

    async def classify(self, photos: Sequence[bytes]) -> list[Prediction | ImageError]:
        """See :meth:`Classifier.classify`."""

    async def close(self) -> None:
        """Wait for what is in work."""


class Classifier:
    """Bytes to predictions for an event loop: decoding and the network run in threads.

    Parameters
    ----------
    model : Model
        What classifies.
    limits : Limits, optional
        What one photo may cost.
    queue : int
        Photos waiting or in work at most.
    batch, wait, threads : int, float, int
        See :class:`Batcher`; as many threads again decode.
    seconds : float
        Time that one call may take.
    """

    def __init__(
        self,
        model: Model,
        *,
        limits: Limits | None = None,
        queue: int = 64,
        batch: int = 16,
        wait: float = 0.002,
        threads: int = 1,
        seconds: float = 30.0,
    ) -> None:
        self._model = model
        self._limits = limits or Limits()
        self._queue = queue
        self._seconds = seconds
        self._pending = 0
        self._tasks: set[asyncio.Task[list[Prediction | ImageError]]] = set()
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._batcher: Batcher[npt.NDArray[np.float32], Prediction] = Batcher(
            self._infer, size=batch, wait=wait, threads=threads
        )

    @property
    def pending(self) -> int:
        """Photos that wait or are in work."""
        return self._pending

    async def classify(self, photos: Sequence[bytes]) -> list[Prediction | ImageError]:
        """Classify photos.

        Parameters
        ----------
        photos : sequence of bytes
            The files as they came.

        Returns
        -------
        list of Prediction or ImageError
            In order; an error stands where a photo cannot be used.

        Raises
        ------
        BusyError
            If so many photos do not fit into the queue, or the answer takes too long.
        """
        if self._pending + len(photos) > self._queue:
            raise BusyError(f"{self._pending} photos wait already, {self._queue} at most")
        self._pending += len(photos)
        # A task of its own: a thread cannot be stopped, so that photos whose client has gone or
        # whose time is up keep their place in the queue until they are really done with.
        task = asyncio.get_running_loop().create_task(self._all(photos))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise BusyError(f"no answer within {self._seconds} s") from error

    async def close(self) -> None:
        """Wait for what is in work and end the threads."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._decoders.shutdown()
        self._batcher.close()

    async def _all(self, photos: Sequence[bytes]) -> list[Prediction | ImageError]:
        try:
            if len(photos) == 1:
                return [await self._one(photos[0])]
            return list(await asyncio.gather(*(self._one(photo) for photo in photos)))
        finally:
            self._pending -= len(photos)

    async def _one(self, photo: bytes) -> Prediction | ImageError:
        loop = asyncio.get_running_loop()
        try:
            array = await loop.run_in_executor(self._decoders, self._prepare, photo)
        except ImageError as error:
            return error
        return await self._batcher.submit(array)

    def _prepare(self, photo: bytes) -> npt.NDArray[np.float32]:
        return self._model.transform(read_image(photo, self._limits))  # (3, H, W)

    def _infer(self, arrays: list[npt.NDArray[np.float32]]) -> list[Prediction]:
        return self._model.predict_arrays(np.stack(arrays))  # (3, H, W) each -> (N, 3, H, W)
