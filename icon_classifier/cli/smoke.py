"""Check a served page: visit it, classify a photo, compare the label if one is expected."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketError

from icon_classifier.errors import DeploymentError
from icon_classifier.page.examples import fastbook_photo
from icon_classifier.server.visitor import Visit

_PREDICTION = re.compile(
    r"(?:(?P<known>Prediction)|closest): (?P<label>.+)(?:; Probability: | \()"
    r"(?P<probability>[01]\.\d+)"
)


@dataclass(frozen=True)
class SmokeReport:
    """What a served page answered.

    Attributes
    ----------
    url : str
        The page.
    label : str
        The label that it predicted; "not sure, closest: LABEL" if it was not sure.
    probability : float
        Its probability, 0 to 1.
    page_seconds, answer_seconds : float
        From the request to the page with its widgets, and from the click to the label.
    """

    url: str
    label: str
    probability: float
    page_seconds: float
    answer_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.url}: {self.label} ({self.probability:.4f}); "
            f"page {self.page_seconds:.2f} s, answer {self.answer_seconds:.2f} s"
        )


def example_photo() -> Path:
    """Return the path of fastbook's grizzly.

    Raises
    ------
    DeploymentError
        If fastbook is not installed.
    """
    path = fastbook_photo("grizzly.jpg")
    if path is None:
        raise DeploymentError("fastbook is not installed; name a photo: --photo PATH --label LABEL")
    return path


@contextlib.asynccontextmanager
async def visiting(url: str, photo: Path, timeout: float = 60) -> AsyncIterator[SmokeReport]:
    """Visit a page, classify `photo`, and stay until the block ends.

    Parameters
    ----------
    url : str
        The page's address, http or https.
    photo : Path
        A photo on this machine.
    timeout : float
        Seconds from the request to the label.

    Yields
    ------
    SmokeReport
        What the page answered. Its kernel is shut down at the end of the block.

    Raises
    ------
    DeploymentError
        If the page cannot be reached, is not this app's, or answers with no label in time.
    """
    try:
        content = photo.read_bytes()
    except OSError as error:
        raise DeploymentError(f"cannot read {photo}: {error.strerror}") from error
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(timeout):
                started = time.perf_counter()
                visit = await Visit.open(url, timeout)
                stack.push_async_exit(_leaving(visit))
                page_seconds = time.perf_counter() - started
                await visit.choose(content, photo.name)
                clicked = time.perf_counter()
                await visit.click()
                line = await visit.answer()
                answer_seconds = time.perf_counter() - clicked
        except TimeoutError as error:
            raise DeploymentError(f"{url} gave no answer within {timeout:g} s") from error
        except (WebSocketError, ConnectionError) as error:
            raise DeploymentError(f"the websocket of {url} failed: {error}") from error
        found = _PREDICTION.search(line)
        if found is None:
            raise DeploymentError(f"{url}: expected a prediction, got {line!r}")
        label = found["label"] if found["known"] else f"not sure, closest: {found['label']}"
        yield SmokeReport(url, label, float(found["probability"]), page_seconds, answer_seconds)


def _leaving(visit: Visit) -> Any:
    async def leave(_: Any, error: BaseException | None, __: Any) -> None:
        # What went wrong before is what the reader wants to know.
        with contextlib.suppress(DeploymentError) if error else contextlib.nullcontext():
            await visit.leave()

    return leave


def smoke(
    url: str, photo: Path | None = None, label: str | None = None, timeout: float = 60
) -> SmokeReport:
    """Visit a page and check that it answers for `photo`, with `label` if that is given.

    Parameters
    ----------
    url : str
        The page's address.
    photo : Path, optional
        A photo on this machine; fastbook's grizzly if left out.
    label : str, optional
        The expected label; any, also "not sure", if left out.
    timeout : float
        Seconds for the whole visit.

    Raises
    ------
    DeploymentError
        If the page does not do that; the text says what it did instead.
    """

    async def visit() -> SmokeReport:
        async with visiting(url, photo or example_photo(), timeout) as report:
            return report

    report = asyncio.run(visit())
    if label is not None and report.label != label:
        raise DeploymentError(f"{url}: expected {label!r}, got {report.label!r}")
    return report
