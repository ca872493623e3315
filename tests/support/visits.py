"""Visit a page without a browser: over HTTP and a websocket, as the page's own script does.

For tests, benchmarks and the check that a deployed page works.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import struct
import uuid
from collections.abc import Sequence
from typing import Any, Self
from urllib.parse import urljoin, urlsplit, urlunsplit

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from icon_classifier.errors import RequestError
from icon_classifier.server.messages import PROTOCOL

_KERNEL_ID = re.compile(
    r'kernel[-_]?id"?\s*[:=]\s*"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})', re.I
)


class Visit:
    """One open page.

    Made by :meth:`open`; a context manager that leaves at its end.

    Attributes
    ----------
    kernel_id : str
        The id of the kernel behind the page.
    html : str
        The page.
    widgets : dict of str to dict
        The state of each widget, by model id, as last told.
    """

    def __init__(
        self, url: str, kernel_id: str, html: str, line: WebSocketClientConnection
    ) -> None:
        self.url = url
        self.kernel_id = kernel_id
        self.html = html
        self.widgets: dict[str, dict[str, Any]] = {}
        self._line = line
        self._over = False
        self._session = uuid.uuid4().hex

    @classmethod
    async def open(cls, url: str, seconds: float = 60.0) -> Self:
        """Load the page and connect to its kernel.

        Parameters
        ----------
        url : str
            Address of the page.
        seconds : float, optional
            How long that may take.

        Raises
        ------
        RequestError
            If the page does not come, or has no kernel.
        """
        request = HTTPRequest(url, connect_timeout=seconds, request_timeout=seconds)
        answer = await AsyncHTTPClient().fetch(request, raise_error=False)
        html = answer.body.decode("utf-8", "replace")
        if answer.code != 200:
            raise RequestError(f"{url} answered {answer.code}, expected 200")
        found = _KERNEL_ID.search(html)
        if found is None:
            raise RequestError(f"the page at {url} names no kernel")
        base = re.search(r'"baseUrl": "([^"]*)"', html)
        root = urlsplit(urljoin(url, base[1] if base else "/"))
        scheme = {"http": "ws", "https": "wss"}[root.scheme]
        path = f"{root.path}api/kernels/{found[1]}/channels"
        address = urlunsplit((scheme, root.netloc, path, f"session_id={uuid.uuid4().hex}", ""))
        line = await websocket_connect(
            HTTPRequest(address, connect_timeout=seconds),
            subprotocols=[PROTOCOL],
            max_message_size=64 * 2**20,
        )
        visit = cls(url, found[1], html, line)
        await asyncio.wait_for(visit._ask_for_states(), seconds)
        return visit

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave without a word to the kernel, as a browser that is killed does."""
        self._line.close()
        while not self._over and await self._line.read_message() is not None:
            pass

    def find(self, model_name: str) -> list[str]:
        """List the ids of the widgets of a kind such as ``ButtonModel``, the oldest first."""
        return [key for key, state in self.widgets.items() if state["_model_name"] == model_name]

    async def choose(self, photo: bytes, name: str = "photo.jpg") -> None:
        """Put a photo into the page's file chooser."""
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

    async def classify(self, photo: bytes, seconds: float = 60.0) -> str:
        """Choose a photo, press the button and wait for the answer.

        Returns
        -------
        str
            What a label then says.
        """
        await self.choose(photo)
        await self.click()
        return await asyncio.wait_for(self._answer(), seconds)

    async def send(
        self,
        kind: str,
        content: dict[str, Any],
        buffers: Sequence[bytes] = (),
        metadata: dict[str, Any] | None = None,
        channel: str = "shell",
    ) -> str:
        """Send a message, usually on the shell channel; return its id."""
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": kind,
            "session": self._session,
            "username": "",
            "date": "",
            "version": "5.3",
        }
        parts = [json.dumps(part).encode() for part in (header, {}, metadata or {}, content)]
        await self._line.write_message(_pack(channel, [*parts, *buffers]), binary=True)
        return header["msg_id"]

    async def send_raw(self, frame: bytes | str) -> None:
        """Send whatever it is."""
        await self._line.write_message(frame, binary=isinstance(frame, bytes))

    async def receive(self) -> tuple[str, dict[str, Any], dict[str, Any], list[bytes]]:
        """Wait for the next message.

        Returns
        -------
        tuple
            Its type, the header of the message that it answers, its content and its buffers.

        Raises
        ------
        RequestError
            If the line is closed.
        """
        packet = await self._line.read_message()
        if packet is None:
            self._over = True
            raise RequestError("the server closed the line")
        parts = _unpack(packet if isinstance(packet, bytes) else packet.encode())
        header, parent, _, content = (json.loads(part) for part in parts[:4])
        return header["msg_type"], parent, content, parts[4:]

    async def _ask_for_states(self) -> None:
        comm_id = uuid.uuid4().hex
        opening = {
            "comm_id": comm_id,
            "target_name": "jupyter.widget.control",
            "data": {},
        }
        await self.send("comm_open", opening, metadata={"version": "1.0.0"})
        await self.send("comm_msg", {"comm_id": comm_id, "data": {"method": "request_states"}})
        while not self.widgets:
            kind, _, content, _ = await self.receive()
            if kind == "comm_msg" and content["data"].get("method") == "update_states":
                for key, model in content["data"]["states"].items():
                    self.widgets[key] = {**model["state"], "_model_name": model["model_name"]}

    async def _answer(self) -> str:
        """Wait until the button is free again, and then for what the labels say."""
        button = self.find("ButtonModel")[0]
        before = {key: self.widgets[key].get("value") for key in self.find("LabelModel")}
        while True:
            kind, _, content, _ = await self.receive()
            if kind != "comm_msg" or content["comm_id"] not in self.widgets:
                continue
            state = content["data"].get("state", {})
            self.widgets[content["comm_id"]].update(state)
            if content["comm_id"] == button and state.get("disabled") is False:
                said = [self.widgets[key].get("value", "") for key in before]
                return str(next((text for text in said if text not in before.values()), said[-1]))


def _pack(channel: str, parts: Sequence[bytes]) -> bytes:
    """Lay out a message: the count of offsets, the offsets, the channel, the parts."""
    blocks = [channel.encode(), *parts]
    offsets = [8 * (len(blocks) + 2)]
    for block in blocks:
        offsets.append(offsets[-1] + len(block))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(blocks)


def _unpack(packet: bytes) -> list[bytes]:
    (count,) = struct.unpack_from("<Q", packet)
    offsets = struct.unpack_from(f"<{count}Q", packet, 8)
    return [packet[a:b] for a, b in itertools.pairwise(offsets[1:])]
