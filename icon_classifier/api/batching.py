"""Classify photos of concurrent requests in small batches, beside the event loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from icon_classifier.api.decoding import Decoders
from icon_classifier.api.settings import ApiSettings
from icon_classifier.errors import ImageError
from icon_classifier.model.session import Model, Prediction

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Groups items that arrive close together and processes the group in threads.

    A group is divided evenly among the threads, so that two photos run on two cores in parallel
    instead of one after the other on one core; each thread takes a few items at a time, in order of
    arrival. An item waits only while others are being prepared. For use from one event loop.

    Parameters
    ----------
    run : callable
        Called in a thread with at most `step_size` items and with whether they are the only work;
        returns one result for each, in order.
    pool : concurrent.futures.ThreadPoolExecutor
        Where `run` is called; the caller shuts it down.
    batch_size : int
        Size of a group that no longer waits for further items.
    step_size : int
        Maximum number of items in one call of `run`.
    max_wait : float
        Maximum seconds that an item waits for others that are being prepared.
    threads : int
        Maximum number of concurrent calls of `run`.
    """

    def __init__(
        self,
        run: Callable[[list[Item], bool], Sequence[Result]],
        pool: ThreadPoolExecutor,
        *,
        batch_size: int,
        step_size: int,
        max_wait: float,
        threads: int,
    ) -> None:
        self._run = run
        self._pool = pool
        self._batch_size = batch_size
        self._step_size = min(step_size, batch_size)
        self._max_wait = max_wait
        self._threads = threads
        self._free_threads = threads
        self._progress = 0.0
        self._preparing = 0
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._overdue = False

    @property
    def stalled_seconds(self) -> float:
        """How long threads have been at work, none of which finished; 0 if all are free."""
        busy = self._free_threads < self._threads
        return time.monotonic() - self._progress if busy else 0.0

    async def submit(self, preparation: Awaitable[Item]) -> Result:
        """Wait until an item is prepared and return its result.

        Raises what the preparation or `run` raises.
        """
        loop = asyncio.get_running_loop()
        self._preparing += 1
        try:
            item = await preparation
        except BaseException:
            self._preparing -= 1
            self._dispatch()  # other items may have waited for this one
            raise
        self._preparing -= 1
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        if self._timer is None:
            self._timer = loop.call_later(self._max_wait, self._on_timer)
        self._dispatch()
        return await future

    def _on_timer(self) -> None:
        self._timer = None
        self._overdue = True
        self._dispatch()

    def _dispatch(self) -> None:
        """Start what waits, if it is due and as far as threads are free."""
        due = self._overdue or not self._preparing or len(self._waiting) >= self._batch_size
        share = min(self._step_size, math.ceil(len(self._waiting) / self._threads))
        while due and self._free_threads and self._waiting:
            step = [self._waiting.popleft() for _ in range(min(share, len(self._waiting)))]
            idle = self._free_threads == self._threads
            only_work = idle and not self._waiting and not self._preparing
            if idle:
                self._progress = time.monotonic()
            self._free_threads -= 1
            work = asyncio.get_running_loop().run_in_executor(
                self._pool, self._run, [item for item, _ in step], only_work
            )
            work.add_done_callback(lambda done, step=step: self._on_done(done, step))  # type: ignore[misc]
        if not self._waiting:
            self._overdue = False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _on_done(
        self,
        work: asyncio.Future[Sequence[Result]],
        step: list[tuple[Item, asyncio.Future[Result]]],
    ) -> None:
        self._free_threads += 1
        self._progress = time.monotonic()
        error = work.exception()
        results = [None] * len(step) if error is not None else work.result()
        for (_, future), result in zip(step, results, strict=True):
            if future.done():  # cancelled by its request
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]
        self._dispatch()


class Classifier(Protocol):
    """What the API needs of a classifier: a :class:`LocalClassifier`, or one on other machines."""

    @property
    def stalled_seconds(self) -> float:
        """How long photos have been in work, none of which was finished; 0 if there are none."""

    async def classify(
        self, photos: Sequence[bytes], client: str = ""
    ) -> list[Prediction | ImageError]:
        """Classify photos; see :meth:`LocalClassifier.classify`."""

    async def close(self) -> None:
        """Release all resources; photos that are being classified fail."""


class LocalClassifier:
    """Decodes photos in processes of this machine and classifies them in threads of this process.

    Parameters
    ----------
    model : Model
        Opened with one thread: the photos of concurrent requests share the cores.
    settings : ApiSettings
        The limits.
    multithreaded : Model, optional
        The same model opened with several threads, for a photo that arrives alone.
    """

    def __init__(
        self, model: Model, settings: ApiSettings, multithreaded: Model | None = None
    ) -> None:
        self._model = model
        self._multithreaded = multithreaded or model
        # One more than cores, as one client may not use all of them.
        info, processes = model.info, settings.threads + 1
        self._decoders = Decoders(info.pipeline, settings.limits, processes, info.mode)
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="classify")
        self._batcher: Batcher[npt.NDArray[np.uint8], Prediction] = Batcher(
            self._predict,
            self._pool,
            batch_size=settings.batch,
            step_size=settings.step,
            max_wait=settings.batch_wait,
            threads=settings.threads,
        )

    @property
    def stalled_seconds(self) -> float:
        """How long photos have been in work, none of which was finished; 0 if there are none."""
        return self._batcher.stalled_seconds

    async def classify(
        self, photos: Sequence[bytes], client: str = ""
    ) -> list[Prediction | ImageError]:
        """Classify photos.

        Parameters
        ----------
        photos : sequence of bytes
            The files as they were received.
        client : str, optional
            Who sent them; cores are shared evenly between clients.

        Returns
        -------
        list of Prediction or ImageError
            In order; an error in place of a photo that cannot be used.

        Raises
        ------
        BusyError
            If photos cannot be decoded at the moment.
        """
        return list(await asyncio.gather(*(self._classify_one(photo, client) for photo in photos)))

    async def close(self) -> None:
        """End the processes, and the threads once they are finished."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        await self._decoders.close()

    async def _classify_one(self, photo: bytes, client: str) -> Prediction | ImageError:
        try:
            return await self._batcher.submit(self._decoders.decode(photo, client))
        except ImageError as error:
            return error

    def _predict(self, photos: list[npt.NDArray[np.uint8]], only_work: bool) -> list[Prediction]:
        # Two photos on one core each are faster than both on two cores in turn.
        model = self._multithreaded if only_work and len(photos) == 1 else self._model
        # (H, W, 3) each -> (N, 3, H, W)
        return model.predict_arrays(np.stack([model.normalise(pixels) for pixels in photos]))
