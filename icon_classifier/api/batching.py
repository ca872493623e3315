"""Photos of many requests go through the network together, off the event loop."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from icon_classifier.errors import BusyError, ImageError
from icon_classifier.images import Limits, read_image
from icon_classifier.model.session import Model, Prediction

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Collects what arrives within a moment and hands it to threads together.

    What is together is dealt out evenly over the threads, so that two photos take two cores side by
    side, not one core twice as long, and in steps, first come, first served. Nobody waits for
    others where no others are coming. To be used from one event loop.

    Parameters
    ----------
    run : callable
        Called in a thread with at most `step` items, and whether they are all that there is to do;
        gives one answer for each, in order.
    pool : concurrent.futures.ThreadPoolExecutor
        Its threads; the caller ends them.
    size : int
        Items that go together at most: so many never wait for others.
    step : int
        Items that one thread takes at a time at most.
    wait : float
        Seconds that an item waits at most for others that are coming.
    threads : int
        Steps in work at the same time.
    """

    def __init__(
        self,
        run: Callable[[list[Item], bool], Sequence[Answer]],
        pool: ThreadPoolExecutor,
        *,
        size: int,
        step: int,
        wait: float,
        threads: int,
    ) -> None:
        self._run = run
        self._pool = pool
        self._size = size
        self._step = min(step, size)
        self._wait = wait
        self._all = threads
        self._free = threads
        self._coming = 0
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due = False

    async def submit(self, coming: Awaitable[Item]) -> Answer:
        """Wait for an item to come, then for the answer to it.

        What goes wrong with its coming or in `run` is raised here.
        """
        loop = asyncio.get_running_loop()
        self._coming += 1
        try:
            item = await coming
        except BaseException:
            self._coming -= 1
            self._dispatch()  # somebody may have waited for this one
            raise
        self._coming -= 1
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, future))
        if self._timer is None:
            self._timer = loop.call_later(self._wait, self._on_time)
        self._dispatch()
        return await future

    def _on_time(self) -> None:
        self._timer = None
        self._due = True
        self._dispatch()

    def _dispatch(self) -> None:
        """Deal out what waits, if it is time and while threads are free."""
        time = self._due or not self._coming or len(self._waiting) >= self._size
        share = min(self._step, math.ceil(len(self._waiting) / self._all))
        while time and self._free and self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(share, len(self._waiting)))]
            alone = self._free == self._all and not self._waiting and not self._coming
            self._free -= 1
            work = asyncio.get_running_loop().run_in_executor(
                self._pool, self._run, [item for item, _ in batch], alone
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
        What classifies, opened with one thread: the photos of a busy time share the cores.
    quick : Model, optional
        The same model opened with several threads: it takes the photo that comes alone.
    limits : Limits, optional
        What one photo may cost.
    queue : int
        Photos waiting or in work at most.
    batch, step, wait, threads : int, int, float, int
        See :class:`Batcher`; the same threads decode.
    seconds : float
        Time that one call may take.
    """

    def __init__(
        self,
        model: Model,
        *,
        quick: Model | None = None,
        limits: Limits | None = None,
        queue: int = 64,
        batch: int = 16,
        step: int = 2,
        wait: float = 0.002,
        threads: int = 1,
        seconds: float = 30.0,
    ) -> None:
        self._model = model
        self._quick = quick or model
        self._limits = limits or Limits()
        self._queue = queue
        self._seconds = seconds
        self._pending = 0
        self._tasks: set[asyncio.Task[list[Prediction | ImageError]]] = set()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="classify")
        self._batcher: Batcher[npt.NDArray[np.float32], Prediction] = Batcher(
            self._infer, self._pool, size=batch, step=step, wait=wait, threads=threads
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
        self._pool.shutdown()

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
            return await self._batcher.submit(
                loop.run_in_executor(self._pool, self._prepare, photo)
            )
        except ImageError as error:
            return error

    def _prepare(self, photo: bytes) -> npt.NDArray[np.float32]:
        return self._model.transform(read_image(photo, self._limits))  # (3, H, W)

    def _infer(self, arrays: list[npt.NDArray[np.float32]], alone: bool) -> list[Prediction]:
        # Two photos on two cores are done sooner than each on both in turn.
        model = self._quick if alone and len(arrays) == 1 else self._model
        return model.predict_arrays(np.stack(arrays))  # (3, H, W) each -> (N, 3, H, W)
