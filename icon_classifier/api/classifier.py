"""Classify the photos of concurrent requests, beside the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt

from icon_classifier.api.decoding import Decoders
from icon_classifier.api.settings import ApiSettings
from icon_classifier.errors import ImageError
from icon_classifier.model.session import Model, Prediction


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

    Each photo goes through the network by itself: on a CPU a batch costs no less per photo, because
    the activations between layers no longer fit in the caches. For use from one event loop.

    Parameters
    ----------
    model : Model
        Opened with one thread: the photos of concurrent requests share the cores.
    settings : ApiSettings
        The limits.
    multithreaded : Model, optional
        The same model opened with several threads, for a photo that is alone.
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
        self._photos = 0  # being decoded or classified
        self._unfinished: set[Future[Prediction]] = set()
        self._progress = 0.0

    @property
    def stalled_seconds(self) -> float:
        """How long photos have been in work, none of which was finished; 0 if there are none."""
        return time.monotonic() - self._progress if self._unfinished else 0.0

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
        self._photos += 1
        try:
            pixels = await self._decoders.decode(photo, client)
            # Two photos on one core each are faster than both on two cores in turn.
            model = self._multithreaded if self._photos == 1 else self._model
            return await self._predict(model, pixels)
        except ImageError as error:
            return error
        finally:
            self._photos -= 1

    async def _predict(self, model: Model, pixels: npt.NDArray[np.uint8]) -> Prediction:
        if not self._unfinished:
            self._progress = time.monotonic()
        # (H, W, 3) -> (1, 3, H, W)
        work = self._pool.submit(lambda: model.predict_arrays(model.normalise(pixels)[None])[0])
        self._unfinished.add(work)
        work.add_done_callback(self._on_done)
        return await asyncio.wrap_future(work)

    def _on_done(self, work: Future[Prediction]) -> None:
        """Note that a thread finished a photo, or that one was cancelled before any took it."""
        if not work.cancelled():
            self._progress = time.monotonic()
        self._unfinished.discard(work)
