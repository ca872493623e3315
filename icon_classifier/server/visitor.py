"""Open a served page as a browser would, upload a photo, and check the label.

No browser is needed: the page is fetched by HTTP, and then its widgets are spoken to through the
kernel's websocket in Jupyter's protocol. For use after each deployment, and on a schedule.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from jupyter_server.services.kernels.connection.base import (
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.websocket import WebSocketClientConnection, WebSocketError, websocket_connect

from icon_classifier.errors import DeploymentError
from icon_classifier.server.messages import PROTOCOL

_CONTROL = "jupyter.widget.control"
_ANSWER = re.compile(r"Prediction: (?P<label>.+); Probability: (?P<probability>[01]\.\d+)")


@dataclass(frozen=True)
class SmokeReport:
    """What a served page answered.

    Attributes
    ----------
    url : str
        The page.
    label : str
        What it saw in the photo.
    probability : float
        How sure it was, from 0 to 1.
    page_seconds, answer_seconds : float
        From the request to the whole page, and from the click to the label.
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
    """Find fastbook's grizzly, without importing fastbook.

    Raises
    ------
    DeploymentError
        If fastbook is not installed.
    """
    try:
        files = metadata.files("fastbook") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "grizzly.jpg" and (path := Path(str(file.locate()))).is_file():
            return path
    raise DeploymentError("fastbook is not installed, so name a photo: --photo PATH --label LABEL")


@dataclass
class _Page:
    """A page's kernel, spoken to through its websocket."""

    socket: WebSocketClientConnection
    comm: str = field(default_factory=lambda: uuid.uuid4().hex)
    session: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def send(
        self, kind: str, content: Mapping[str, Any], buffers: Sequence[bytes] = (), **meta: str
    ) -> None:
        """Send a message of the widgets' protocol on the shell channel."""
        header = {"msg_id": uuid.uuid4().hex, "msg_type": kind, "version": "5.3"}
        message = {
            "header": header | {"session": self.session, "username": "", "date": None},
            "parent_header": {},
            "metadata": meta,
            "content": content,
        }
        parts = [json.dumps(part).encode() for part in message.values()]
        raw = serialize_msg_to_ws_v1([*parts, *buffers], "shell")  # type: ignore[no-untyped-call]
        await self.socket.write_message(raw, binary=True)

    async def receive(self) -> tuple[str, dict[str, Any]]:
        """Return the next message's comm and data, other kinds passed over."""
        while True:
            raw = await self.socket.read_message()
            if raw is None:
                raise DeploymentError("the page's websocket was closed before an answer came")
            if isinstance(raw, str):
                raise DeploymentError("the page's websocket speaks an old form of the protocol")
            _, parts = deserialize_msg_from_ws_v1(raw)  # type: ignore[no-untyped-call]
            header, _, _, content = (json.loads(part) for part in parts[:4])
            if header["msg_type"] == "comm_msg":
                return content["comm_id"], content["data"]

    async def widgets(self) -> dict[str, dict[str, Any]]:
        """Ask for the state of every widget, by model id."""
        opening = {"comm_id": self.comm, "target_name": _CONTROL, "data": {"widgets": None}}
        await self.send("comm_open", opening, version="1.0.0")
        wanted = {"comm_id": self.comm, "data": {"method": "request_states"}}
        await self.send("comm_msg", wanted)
        while True:
            comm, data = await self.receive()
            if comm == self.comm and data["method"] == "update_states":
                states: dict[str, dict[str, Any]] = data["states"]
                return states

    async def upload(self, model: str, photo: Path) -> None:
        """Put a photo into the file chooser, exactly as a browser does."""
        content = photo.read_bytes()
        entry = {"name": photo.name, "type": "image/jpeg", "size": len(content)}
        state = {"value": [entry | {"last_modified": 0}]}
        data = {"method": "update", "state": state, "buffer_paths": [["value", 0, "content"]]}
        await self.send("comm_msg", {"comm_id": model, "data": data}, [content])

    async def click(self, model: str) -> None:
        """Press a button."""
        data = {"method": "custom", "content": {"event": "click"}}
        await self.send("comm_msg", {"comm_id": model, "data": data})

    async def answer(self) -> re.Match[str]:
        """Wait for the line with the prediction."""
        while True:
            _, data = await self.receive()
            value = data.get("state", {}).get("value")
            if isinstance(value, str) and (match := _ANSWER.search(value)):
                return match


async def _fetch(request: HTTPRequest) -> HTTPResponse:
    try:
        return await AsyncHTTPClient().fetch(request)
    except HTTPClientError as error:
        raise DeploymentError(f"{request.url} answered {error.code}: {error.message}") from error
    except OSError as error:
        raise DeploymentError(f"{request.url} cannot be reached: {error}") from error


def _find(html: str, name: str, url: str) -> str:
    """Read one of Jupyter's page settings."""
    match = re.search(rf'"{name}"\s*:\s*"([^"]*)"', html)
    if match is None:
        raise DeploymentError(f"{url} is no page of this app: it names no {name}")
    return match[1]


def _first(states: Mapping[str, Mapping[str, Any]], kind: str, word: str = "") -> str:
    """Find the first widget of a kind, with `word` at the start of what stands on it."""
    for model, entry in states.items():
        description = entry["state"].get("description", "")
        if entry["model_name"] == kind and description.startswith(word):
            return model
    raise DeploymentError(f"the page has no {kind.removesuffix('Model')}")


@contextlib.asynccontextmanager
async def visiting(url: str, photo: Path, timeout: float = 60) -> AsyncIterator[SmokeReport]:
    """Visit a page, upload `photo`, wait for the label, and stay until the block ends.

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
        What the page answered. Its kernel runs on as long as the block does.

    Raises
    ------
    DeploymentError
        If the page cannot be reached, is not this app's, or gives no label in time.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(timeout):
                report = await _visit(url, photo, timeout, stack)
        except TimeoutError as error:
            raise DeploymentError(f"{url} gave no label within {timeout:g} s") from error
        except (WebSocketError, HTTPClientError, ConnectionError) as error:
            raise DeploymentError(f"the websocket of {url} failed: {error}") from error
        yield report


async def visit(url: str, photo: Path, timeout: float = 60) -> SmokeReport:
    """Visit a page once as :func:`visiting` does, and leave it."""
    async with visiting(url, photo, timeout) as report:
        return report


async def _visit(
    url: str, photo: Path, timeout: float, stack: contextlib.AsyncExitStack
) -> SmokeReport:
    started = time.perf_counter()
    page = await _fetch(HTTPRequest(url, connect_timeout=timeout, request_timeout=timeout))
    page_seconds = time.perf_counter() - started
    html = page.body.decode()
    kernel, base = _find(html, "kernelId", url), _find(html, "baseUrl", url)
    parts = urlsplit(page.effective_url)
    # A router that sends each visitor to the same machine knows him by its cookie.
    cookies = {
        name: item.value
        for name, item in SimpleCookie("; ".join(page.headers.get_list("Set-Cookie"))).items()
    }
    # What guards against forged requests is that cookie and header are the same.
    token = cookies.setdefault("_xsrf", uuid.uuid4().hex)
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    headers["X-XSRFToken"] = token
    # As a browser does when its window is closed: the kernel's memory is free.
    shutdown = f"{parts.scheme}://{parts.netloc}{base}voila/api/shutdown/{kernel}"
    leaving = HTTPRequest(shutdown, method="POST", body=b"", headers=headers)

    async def leave(_: Any, error: BaseException | None, __: Any) -> None:
        # What went wrong before is what the reader wants to know.
        with contextlib.suppress(DeploymentError) if error else contextlib.nullcontext():
            await _fetch(leaving)

    stack.push_async_exit(leave)
    channels = f"{base}api/kernels/{kernel}/channels"
    scheme = "wss" if parts.scheme == "https" else "ws"
    address = urlunsplit((scheme, parts.netloc, channels, f"session_id={uuid.uuid4().hex}", ""))
    origin = {"Origin": f"{parts.scheme}://{parts.netloc}"}
    request = HTTPRequest(address, headers=headers | origin)
    socket = await websocket_connect(request, subprotocols=[PROTOCOL])
    stack.callback(socket.close)
    kernels_page = _Page(socket)
    states = await kernels_page.widgets()
    await kernels_page.upload(_first(states, "FileUploadModel"), photo)
    clicked = time.perf_counter()
    await kernels_page.click(_first(states, "ButtonModel", "Classify"))
    answer = await kernels_page.answer()
    answer_seconds = time.perf_counter() - clicked
    return SmokeReport(
        url, answer["label"], float(answer["probability"]), page_seconds, answer_seconds
    )


def smoke(
    url: str, photo: Path | None = None, label: str = "grizzly", timeout: float = 60
) -> SmokeReport:
    """Visit a page and check that it sees `label` in `photo`.

    Parameters
    ----------
    url : str
        The page's address.
    photo : Path, optional
        A photo on this machine; fastbook's grizzly if left out.
    label : str
        What must be seen in it.
    timeout : float
        Seconds for the whole visit.

    Raises
    ------
    DeploymentError
        If the page does not do its job; the text says what came instead.
    """
    report = asyncio.run(visit(url, photo or example_photo(), timeout))
    if report.label != label:
        raise DeploymentError(f"{url} saw {report.label!r} in a photo of {label!r}")
    return report
