"""Visit a page without a browser, as its own script does: over HTTP and the kernel's websocket.

For the check of a served page, for tests and benchmarks, and for the kernels' warm-up.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from http.cookies import SimpleCookie
from typing import Any, NamedTuple, Self
from urllib.parse import urljoin, urlsplit, urlunsplit

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_server.services.kernels.connection.base import (
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.websocket import WebSocketClientConnection, WebSocketError, websocket_connect

from icon_classifier.errors import DeploymentError
from icon_classifier.server.messages import PROTOCOL

_CONTROL = "jupyter.widget.control"
_KERNEL_ID = re.compile(
    r'kernel[-_]?id"?\s*[:=]\s*"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})', re.IGNORECASE
)
_BASE_URL = re.compile(r'"baseUrl"\s*:\s*"([^"]*)"')
_MAX_MESSAGE = 64 * 2**20


class Message(NamedTuple):
    """A message of the kernel: its type, the header of its request, its content and buffers."""

    kind: str
    parent: dict[str, Any]
    content: dict[str, Any]
    buffers: list[bytes]


class Page(ABC):
    """A page's widgets, spoken to in Jupyter's protocol.

    Attributes
    ----------
    widgets : dict of str to dict
        The state of each widget, by model id, as last received.
    """

    def __init__(self) -> None:
        self.widgets: dict[str, dict[str, Any]] = {}

    async def send(
        self,
        kind: str,
        content: dict[str, Any],
        buffers: Sequence[bytes] = (),
        metadata: dict[str, Any] | None = None,
        channel: str = "shell",
    ) -> str:
        """Send a message to the kernel; return its id."""
        return await self._send(channel, kind, content, list(buffers), metadata or {})

    @abstractmethod
    async def _send(self, channel: str, kind: str, *parts: Any) -> str:
        """Send content, buffers and metadata as a message on a channel; return its id."""

    @abstractmethod
    async def receive(self) -> Message:
        """Wait for the next message of the kernel.

        Raises
        ------
        DeploymentError
            If the connection is closed.
        """

    async def load_widgets(self) -> None:
        """Ask the kernel for the states of all widgets."""
        comm_id = uuid.uuid4().hex
        opening = {"comm_id": comm_id, "target_name": _CONTROL, "data": {}}
        await self.send("comm_open", opening, metadata={"version": "1.0.0"})
        await self.send("comm_msg", {"comm_id": comm_id, "data": {"method": "request_states"}})
        while True:
            message = await self.receive()
            data = message.content.get("data", {})
            if message.kind == "comm_msg" and data.get("method") == "update_states":
                for key, model in data["states"].items():
                    self.widgets[key] = {**model["state"], "_model_name": model["model_name"]}
                return

    def find(self, model_name: str) -> list[str]:
        """Return the ids of the widgets of a kind such as ``ButtonModel``, the oldest first.

        Raises
        ------
        DeploymentError
            If there is none.
        """
        found = [key for key, state in self.widgets.items() if state["_model_name"] == model_name]
        if not found:
            raise DeploymentError(f"the page has no {model_name.removesuffix('Model')}")
        return found

    async def choose(self, photo: bytes, name: str = "photo.jpg") -> None:
        """Put a photo into the page's file chooser, as a browser does."""
        file = {"name": name, "type": "image/jpeg", "size": len(photo), "last_modified": 0}
        update = {"method": "update", "state": {"value": [file]}}
        paths = [["value", 0, "content"]]
        content = {
            "comm_id": self.find("FileUploadModel")[0],
            "data": {**update, "buffer_paths": paths},
        }
        await self.send("comm_msg", content, [photo])

    async def click(self) -> None:
        """Press the page's button."""
        data = {"method": "custom", "content": {"event": "click"}}
        await self.send("comm_msg", {"comm_id": self.find("ButtonModel")[0], "data": data})

    async def answer(self) -> str:
        """Wait until the button is enabled again; return the label's text."""
        button = self.find("ButtonModel")[0]
        before = {key: self.widgets[key].get("value") for key in self.find("LabelModel")}
        while True:
            message = await self.receive()
            comm_id = message.content.get("comm_id")
            if message.kind != "comm_msg" or comm_id not in self.widgets:
                continue
            state = message.content["data"].get("state", {})
            self.widgets[comm_id].update(state)
            if comm_id == button and state.get("disabled") is False:
                now = [self.widgets[key].get("value", "") for key in before]
                return str(next((text for text in now if text not in before.values()), now[-1]))

    async def classify(self, photo: bytes, seconds: float = 60.0) -> str:
        """Choose a photo, press the button and wait for the answer.

        Returns
        -------
        str
            The label's text.

        Raises
        ------
        TimeoutError
            If there is no answer after so many seconds.
        """
        await self.choose(photo)
        await self.click()
        return await asyncio.wait_for(self.answer(), seconds)


class Visit(Page):
    """One open page of a server; made by :meth:`open`, disconnected at the end of its block.

    Attributes
    ----------
    url : str
        The page's address.
    kernel_id : str
        The id of its kernel.
    html : str
        The page.
    """

    def __init__(
        self,
        url: str,
        kernel_id: str,
        html: str,
        connection: WebSocketClientConnection,
        shutdown: HTTPRequest,
    ) -> None:
        super().__init__()
        self.url = url
        self.kernel_id = kernel_id
        self.html = html
        self._connection = connection
        self._shutdown = shutdown
        self._closed = False
        self._session = uuid.uuid4().hex

    @classmethod
    async def open(cls, url: str, seconds: float = 60.0) -> Self:
        """Load the page, connect to its kernel and load its widgets.

        Parameters
        ----------
        url : str
            Address of the page, http or https.
        seconds : float, optional
            How long that may take.

        Raises
        ------
        DeploymentError
            If no page comes in that time, or it has no kernel.
        TimeoutError
            If its widgets take longer.
        """
        if urlsplit(url).scheme not in ("http", "https"):
            raise DeploymentError(f"expected an address with http:// or https://, got {url!r}")
        page = await _fetch(HTTPRequest(url, connect_timeout=seconds, request_timeout=seconds))
        html = page.body.decode("utf-8", "replace")
        kernel, base = _KERNEL_ID.search(html), _BASE_URL.search(html)
        if kernel is None:
            raise DeploymentError(f"{url} is not a page of this app: it names no kernel")
        root = urlsplit(urljoin(page.effective_url, base[1] if base else "/"))
        headers = _headers(page)
        shutdown = f"{root.scheme}://{root.netloc}{root.path}voila/api/shutdown/{kernel[1]}"
        scheme = {"http": "ws", "https": "wss"}[root.scheme]
        path = f"{root.path}api/kernels/{kernel[1]}/channels"
        address = urlunsplit((scheme, root.netloc, path, f"session_id={uuid.uuid4().hex}", ""))
        origin = {"Origin": f"{root.scheme}://{root.netloc}"}
        try:
            connection = await websocket_connect(
                HTTPRequest(address, headers=headers | origin, connect_timeout=seconds),
                subprotocols=[PROTOCOL],
                max_message_size=_MAX_MESSAGE,
            )
        except (WebSocketError, HTTPClientError, OSError) as error:
            raise DeploymentError(
                f"the websocket of {url} failed: {error}. The server's log may say why; behind a "
                "proxy, see docs/deploying.md"
            ) from error
        leaving = HTTPRequest(shutdown, method="POST", body=b"", headers=headers)
        visit = cls(url, kernel[1], html, connection, leaving)
        await asyncio.wait_for(visit.load_widgets(), seconds)
        return visit

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect without telling the server, as a browser that is killed does."""
        self._connection.close()
        while not self._closed and await self._connection.read_message() is not None:
            pass

    async def leave(self) -> None:
        """Shut the kernel down, as a browser does when its window is closed, and disconnect.

        Raises
        ------
        DeploymentError
            If the server does not accept that.
        """
        try:
            await _fetch(self._shutdown)
        finally:
            self._connection.close()

    async def _send(self, channel: str, kind: str, *parts: Any) -> str:
        content, buffers, metadata = parts
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": kind,
            "session": self._session,
            "username": "",
            "date": "",
            "version": "5.3",
        }
        texts = [json.dumps(part).encode() for part in (header, {}, metadata, content)]
        packed = serialize_msg_to_ws_v1([*texts, *buffers], channel)  # type: ignore[no-untyped-call]
        await self._connection.write_message(packed, binary=True)
        return header["msg_id"]

    async def send_raw(self, frame: bytes | str) -> None:
        """Send any bytes or text."""
        await self._connection.write_message(frame, binary=isinstance(frame, bytes))

    async def receive(self) -> Message:
        """Wait for the next message of the kernel."""
        packet = await self._connection.read_message()
        if packet is None:
            self._closed = True
            raise DeploymentError("the server closed the websocket")
        if isinstance(packet, str):
            raise DeploymentError("expected a binary message on the page's websocket, got text")
        _, parts = deserialize_msg_from_ws_v1(packet)  # type: ignore[no-untyped-call]
        header, parent, _, content = (json.loads(part) for part in parts[:4])
        return Message(header["msg_type"], parent, content, parts[4:])


class KernelPage(Page):
    """The widgets of a notebook in a kernel, without a server.

    Parameters
    ----------
    client : jupyter_client.asynchronous.AsyncKernelClient
        Connected; nobody else may read its IOPub channel meanwhile.
    """

    def __init__(self, client: AsyncKernelClient) -> None:
        super().__init__()
        self._client = client

    async def _send(self, channel: str, kind: str, *parts: Any) -> str:
        content, buffers, metadata = parts
        session = self._client.session
        message = session.msg(kind, content, metadata=metadata)
        socket = getattr(self._client, f"{channel}_channel").socket
        session.send(socket, message, buffers=buffers)
        return str(message["header"]["msg_id"])

    async def receive(self) -> Message:
        """Wait for the next message of the kernel."""
        message = await self._client.get_iopub_msg()
        header = message["header"]
        return Message(
            header["msg_type"], message["parent_header"], message["content"], message["buffers"]
        )


async def play_visit(client: AsyncKernelClient) -> None:
    """Choose a picture of noise and press the button, through a kernel's client.

    For ``VisitorKernelManager.warm_up_visit``, which waits until the kernel has processed both.
    """
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.effect_noise((640, 480), 80).convert("RGB").save(buffer, "JPEG")
    page = KernelPage(client)
    await page.load_widgets()
    await page.choose(buffer.getvalue())
    await page.click()


async def _fetch(request: HTTPRequest) -> HTTPResponse:
    try:
        return await AsyncHTTPClient().fetch(request)
    except HTTPClientError as error:
        # Tornado's own 599 means that nothing came in time, or the connection was closed.
        did = "gave no answer" if error.code == 599 else f"answered {error.code}"
        raise DeploymentError(f"{request.url} {did}: {error.message}") from error
    except OSError as error:
        raise DeploymentError(f"{request.url} cannot be reached: {error}") from error


def _headers(page: HTTPResponse) -> dict[str, str]:
    """Return the headers of the page's further requests: its cookies, and what XSRF checks want.

    A router that sends each visitor to the same machine recognises them by its cookie.
    """
    cookies = {
        name: item.value
        for name, item in SimpleCookie("; ".join(page.headers.get_list("Set-Cookie"))).items()
    }
    # What guards against forged requests is that cookie and header are the same.
    token = cookies.setdefault("_xsrf", uuid.uuid4().hex)
    return {
        "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
        "X-XSRFToken": token,
    }
