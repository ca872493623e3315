"""The one place that hooks into Voilà's web application.

Voilà has no interface for that, but it makes its kernel manager before its handlers: so
:class:`icon_classifier.kernels.manager.VisitorKernelManager` calls :func:`install`.

It is the fence between strangers and the server: what a page has no use for is refused here, be it
an address, a request's size, or a message to the kernel. docs/security.md tells what each attempt
meets.
"""

from __future__ import annotations

import html
import re
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from jupyter_server import DEFAULT_STATIC_FILES_PATH
from jupyter_server.utils import url_path_join
from tornado.iostream import StreamBufferFullError
from tornado.web import Application, HTTPError, RequestHandler
from tornado.websocket import WebSocketClosedError
from voila import notebook_renderer
from voila.app import Voila
from voila.tornado.handler import TornadoVoilaHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

from icon_classifier.errors import RequestError
from icon_classifier.server import static_files as delivery
from icon_classifier.server.exporter import PageExporter
from icon_classifier.server.messages import (
    PROTOCOL,
    Backlog,
    is_allowed,
    read_frame,
    read_kernels,
    without_the_inside,
)

if TYPE_CHECKING:
    from icon_classifier.kernels.manager import VisitorKernelManager

RETRY_SECONDS = 10
"""After this long a visitor who found no room knocks again."""

LISTENING = {"max_body_size": 2**16, "idle_connection_timeout": 60.0, "body_timeout": 20.0}
"""How patient the server is, in bytes and seconds: pages send photos over the kernel's line, and by
HTTP nothing but a word. Tornado itself keeps 100 MB for each request that announces them."""

_MOST_LINES = 4
"""Of one kernel: a page has one, and for a while the dead ones of a phone that lost the network."""

_MOST_WAITING = 2**26
"""Bytes that may wait on a line in each direction."""

# The page's Content-Security-Policy allows style attributes, but no style element.
_BUSY = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="{seconds}">
<title>Busy</title>
<body style="font: 1.125rem/1.5 system-ui, sans-serif; margin: 15vh auto; max-width: 34rem;
  padding: 0 1rem">
<h1>Just a moment</h1>
<p>As many people as this page has room for are here right now.</p>
<p>It tries again by itself every {seconds} seconds; you need not do anything.</p>
<p><a href="{address}">Try again now</a></p>
</html>
"""


class PageHandler(TornadoVoilaHandler):  # type: ignore[misc]
    """Voilà's page, for as many visitors as there is room for."""

    async def get(self, path: str | None = None) -> None:
        """Serve the page, or say that the house is full."""
        if self.notebook_path and path and not self._is_a_file_for_all(path):
            raise HTTPError(404)
        kernels: VisitorKernelManager = self.kernel_manager
        with kernels.booking() as there_is_room:
            if there_is_room:
                await super().get(path)
            else:
                self._refuse()

    def write(self, chunk: str | bytes | dict[str, Any]) -> None:
        """Write a part of the page.

        While a kernel takes long to start, Voilà sends a script every ten seconds to keep the line
        open. The slim page's Content-Security-Policy forbids scripts in the page, and a comment
        keeps the line open as well.
        """
        if chunk == _HEARTBEAT and self.voila_configuration.template == delivery.SLIM:
            chunk = "<!-- still starting -->\n"
        super().write(chunk)

    def head(self, path: str | None = None) -> None:
        """Tell who only asks whether the page is there; starts no kernel."""
        if path:
            raise HTTPError(404)

    def write_error(self, status_code: int, **about: Any) -> None:
        """Name the error; Jupyter's page of it cannot be made for a method that nobody knows."""
        if status_code not in (404, 405):
            super().write_error(status_code, **about)
            return
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code}: {self._reason}\n")

    def _is_a_file_for_all(self, path: str) -> bool:
        allowed = self.voila_configuration.file_allowlist
        return any(re.fullmatch(pattern, path, re.IGNORECASE) for pattern in allowed)

    def _refuse(self) -> None:
        self.set_status(503)
        self.set_header("Retry-After", str(RETRY_SECONDS))
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "text/html; charset=utf-8")
        address = html.escape(self.request.uri or "")
        self.finish(_BUSY.format(seconds=RETRY_SECONDS, address=address))


class ChannelsHandler(VoilaKernelWebsocketHandler):  # type: ignore[misc]
    """A page's line to its kernel, for the few messages that widgets need.

    Voilà 0.5.13 and Jupyter Server 2.21 take the first eight bytes of a message for the number of
    its parts and make a list of so many, whatever they say. One message in Jupyter's older form, or
    a forged one, would fill the memory of the server and stop it for everybody. So would messages
    that come faster than the kernel reads them, or answers that nobody fetches.
    """

    _lines: ClassVar[dict[str, list[ChannelsHandler]]] = {}

    async def get(self, kernel_id: str) -> None:
        """Open the line, if the page speaks the form that can be checked."""
        offered = self.request.headers.get("Sec-WebSocket-Protocol", "")
        if PROTOCOL not in (name.strip() for name in offered.split(",")):
            raise HTTPError(400, f"expected the subprotocol {PROTOCOL}, got {offered!r:.80}")
        await super().get(kernel_id=kernel_id)

    async def open(self, kernel_id: str) -> None:
        """Begin; where a kernel has too many lines, the oldest goes."""
        self._backlog = Backlog(_MOST_WAITING)
        self.ws_connection.stream.max_write_buffer_size = _MOST_WAITING
        lines = self._lines.setdefault(kernel_id, [])
        lines.append(self)
        if len(lines) > _MOST_LINES:
            lines[0].close(1008, "too many lines")
        await super().open(kernel_id)

    def on_message(self, message: bytes | str) -> None:
        """Pass on what a page has use for, drop the rest, and hang up on what no page sends."""
        try:
            frame = read_frame(message)
        except RequestError as error:
            self.log.info("Hung up on a malformed message: %s", error)
            self.close(1002, "malformed message")
            return
        if not is_allowed(frame):
            self.log.info("Dropped a message of kind %.40r", frame.header["msg_type"])
        elif self._backlog.add(frame.header["msg_id"], len(message)):
            super().on_message(message)
        else:
            self.close(1008, "too much at once")

    def write_message(self, message: bytes | dict[str, Any], binary: bool = False) -> Any:
        """Send what the kernel says, as long as it is fetched.

        What comes for a line that is just closing is dropped. Jupyter Server packs it in its older
        form, in which Voilà would look for a header until the end of time.
        """
        if self.ws_connection is None or self.selected_subprotocol != PROTOCOL:
            return None
        if isinstance(message, bytes):
            kind, parent, content = read_kernels(message)
            if content.get("execution_state") == "idle":
                self._backlog.done(str(parent.get("msg_id", "")))
            fit = without_the_inside(message, kind, content)
            if fit is not message:
                self.log.warning("Kept from the page: %s", content.get("ename", "a traceback"))
            if fit is None:
                return None
            message = fit
        try:
            sent = super().write_message(message, binary)
        except WebSocketClosedError:
            return None
        except StreamBufferFullError:
            self.log.info("Hung up on a page that does not listen.")
            self.ws_connection.stream.close()
            return None
        if sent is not None:  # nobody waits for it, and that it failed is no news on a closed line
            sent.add_done_callback(lambda future: future.cancelled() or future.exception())
        return sent

    def on_close(self) -> None:
        """End; the kernel manager sees to the kernel."""
        lines = self._lines.get(self.kernel_id, [])
        if self in lines:
            lines.remove(self)
        if not lines:
            self._lines.pop(self.kernel_id, None)
        super().on_close()


class HealthHandler(RequestHandler):
    """Says that the server answers; starts no kernel."""

    def get(self) -> None:
        """Answer at once."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.write("ok\n")


class MetricsHandler(RequestHandler):
    """Gives the figures to Prometheus, on a port of its own."""

    def initialize(self, kernels: VisitorKernelManager) -> None:
        """Keep the kernels whose figures are asked for."""
        self.kernels = kernels

    def get(self) -> None:
        """Give them."""
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.write(self.kernels.metrics.text())


def install(voila: Voila, kernels: VisitorKernelManager) -> None:
    """Add to Voilà's web application what this project needs there.

    Parameters
    ----------
    voila : voila.app.Voila
        Configured, but without handlers yet: Voilà makes them after its kernel manager.
    kernels : VisitorKernelManager
        Its kernels.
    """
    if kernels.template and "template" not in voila.config.VoilaConfiguration:
        voila.voila_configuration.template = kernels.template
    delivery.install(voila)
    notebook_renderer.VoilaExporter = PageExporter
    # Jupyter's page of an error asks for an icon there; Voilà forgets to say where.
    voila.tornado_settings = {
        "static_path": DEFAULT_STATIC_FILES_PATH,
        "static_url_prefix": url_path_join(voila.server_url, "/voila/static/"),
        **voila.tornado_settings,
    }
    init_handlers = voila.init_handlers

    def init_handlers_for_visitors() -> list[Any]:
        voila.app.listen = partial(voila.app.listen, **LISTENING)
        health = (url_path_join(voila.server_url, "/healthz"), HealthHandler)
        # First: Voilà's own page matches every address.
        return [health, *map(_for_visitors, init_handlers())]

    voila.init_handlers = init_handlers_for_visitors
    if kernels.metrics_port:
        routes = [("/metrics", MetricsHandler, {"kernels": kernels})]
        Application(routes).listen(kernels.metrics_port, kernels.metrics_address)
        voila.log.info(
            "Metrics at http://%s:%d/metrics", kernels.metrics_address, kernels.metrics_port
        )


_HEARTBEAT = "<script>window.voila_heartbeat()</script>\n"
_OURS = {TornadoVoilaHandler: PageHandler, VoilaKernelWebsocketHandler: ChannelsHandler}


def _for_visitors(rule: tuple[Any, ...]) -> tuple[Any, ...]:
    """Put our handlers in the place of Voilà's, whatever their addresses and arguments."""
    pattern, handler, *arguments = rule
    return (pattern, _OURS.get(handler, handler), *arguments)
