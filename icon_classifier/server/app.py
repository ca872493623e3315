"""What stands between strangers and Voilà: handlers, limits, and the manager that installs them.

Voilà has no interface for that, but it creates its kernel manager before its handlers: so
:class:`PageKernelManager`, which voila.json names, calls :func:`install`. What a page does not need
is refused here, be it an address, a request's size or a message to the kernel (docs/security.md).
"""

from __future__ import annotations

import html
import re
from functools import partial
from typing import Any, ClassVar

from jupyter_server import DEFAULT_STATIC_FILES_PATH
from jupyter_server.utils import url_path_join
from tornado.iostream import StreamBufferFullError
from tornado.web import Application, HTTPError, RequestHandler
from tornado.websocket import WebSocketClosedError
from traitlets import Integer, Unicode, default
from voila import notebook_renderer
from voila.app import Voila
from voila.tornado.handler import TornadoVoilaHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

from icon_classifier.errors import RequestError
from icon_classifier.kernels.manager import VisitorKernelManager
from icon_classifier.page import texts
from icon_classifier.server import static_files
from icon_classifier.server.exporter import PageExporter
from icon_classifier.server.messages import (
    PROTOCOL,
    Backlog,
    is_allowed,
    parse_kernel_message,
    parse_page_message,
    redact_traceback,
)

RETRY_SECONDS = 10
"""After this long a page that was refused tries again."""

LISTENING = {"max_body_size": 2**16, "idle_connection_timeout": 60.0, "body_timeout": 20.0}
"""Limits on requests, in bytes and seconds: pages send photos over the websocket, and next to
nothing in the body of a request. Tornado itself keeps 100 MB for each request that announces
them."""

MAX_CONNECTIONS = 4
"""Websockets of one kernel: a page has one, and for a while the dead ones of a phone that lost its
network."""

MAX_WAITING = 2**26
"""Bytes that may wait on a connection in each direction."""

# The page's Content-Security-Policy allows style attributes, but no style element.
_BUSY = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="{seconds}">
<title>{title}</title>
<body style="font: 1.125rem/1.5 system-ui, sans-serif; margin: 15vh auto; max-width: 34rem;
  padding: 0 1rem">
<h1>{heading}</h1>
<p>{reason}</p>
<p>{retry}</p>
<p><a href="{address}">{link}</a></p>
</html>
"""


class PageKernelManager(VisitorKernelManager):
    """The kernels of this project's page; voila.json names it as Voilà's kernel manager."""

    template = Unicode(
        "", help="Voilà's template where none is named otherwise; empty for Voilà's own choice."
    ).tag(config=True)
    metrics_port = Integer(
        0, help="Port for Prometheus' metrics, apart from the public one; 0 for none (default)."
    ).tag(config=True)
    metrics_address = Unicode("127.0.0.1", help="Address on which the metrics are served.").tag(
        config=True
    )

    @default("preload")
    def _preload(self) -> list[str]:
        return ["icon_classifier.page.ui", "icon_classifier.model.opening:open_model"]

    @default("warm_up_visit")
    def _warm_up_visit(self) -> str:
        return "icon_classifier.server.visitor:play_visit"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.metrics.add_count("predictions", "Photos answered in forked kernels.", self.take_count)
        if isinstance(self.parent, Voila):
            install(self.parent, self)


class PageHandler(TornadoVoilaHandler):  # type: ignore[misc]
    """Voilà's page, for as many visitors as there is capacity for."""

    async def get(self, path: str | None = None) -> None:
        """Serve the page, or 503 when there are as many visitors as fit."""
        if self.notebook_path and path and not self._is_allowed_file(path):
            raise HTTPError(404)
        kernels: VisitorKernelManager = self.kernel_manager
        async with kernels.reserve() as reserved:
            if reserved:
                await super().get(path)
            else:
                self._refuse()

    def write(self, chunk: str | bytes | dict[str, Any]) -> None:
        """Write a part of the page.

        While a kernel takes long to start, Voilà sends a script every ten seconds to keep the
        connection open. The slim page's Content-Security-Policy forbids inline scripts, and a
        comment keeps the connection open as well.
        """
        if chunk == _HEARTBEAT and self.voila_configuration.template == static_files.SLIM:
            chunk = "<!-- still starting -->\n"
        super().write(chunk)

    def head(self, path: str | None = None) -> None:
        """Answer a HEAD request; starts no kernel."""
        if path:
            raise HTTPError(404)

    def write_error(self, status_code: int, **about: Any) -> None:
        """Write the error's name; Jupyter's error page cannot be rendered for an unknown method."""
        if status_code not in (404, 405):
            super().write_error(status_code, **about)
            return
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code}: {self._reason}\n")

    def _is_allowed_file(self, path: str) -> bool:
        allowed = self.voila_configuration.file_allowlist
        return any(re.fullmatch(pattern, path, re.IGNORECASE) for pattern in allowed)

    def _refuse(self) -> None:
        self.set_status(503)
        self.set_header("Retry-After", str(RETRY_SECONDS))
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "text/html; charset=utf-8")
        address = html.escape(self.request.uri or "")
        sentences = {name: text.format(seconds=RETRY_SECONDS) for name, text in texts.BUSY.items()}
        self.finish(_BUSY.format(seconds=RETRY_SECONDS, address=address, **sentences))


class ChannelsHandler(VoilaKernelWebsocketHandler):  # type: ignore[misc]
    """A page's websocket to its kernel, for the few messages that widgets need.

    Voilà 0.5.13 and Jupyter Server 2.21 take the first eight bytes of a message for the number of
    its parts and allocate a list of so many, whatever they are. One message in Jupyter's older
    form, or a forged one, would fill the memory of the server and stop it for everybody. So would
    messages that come faster than the kernel reads them, or answers that nobody reads.
    """

    _connections: ClassVar[dict[str, list[ChannelsHandler]]] = {}

    async def get(self, kernel_id: str) -> None:
        """Open the websocket, if the page speaks the subprotocol that can be checked."""
        offered = self.request.headers.get("Sec-WebSocket-Protocol", "")
        if PROTOCOL not in (name.strip() for name in offered.split(",")):
            raise HTTPError(400, f"expected the subprotocol {PROTOCOL}, got {offered!r:.80}")
        await super().get(kernel_id=kernel_id)

    async def open(self, kernel_id: str) -> None:
        """Connect; where a kernel has too many connections, the oldest is closed."""
        self._backlog = Backlog(MAX_WAITING)
        self.ws_connection.stream.max_write_buffer_size = MAX_WAITING
        connections = self._connections.setdefault(kernel_id, [])
        connections.append(self)
        if len(connections) > MAX_CONNECTIONS:
            connections[0].close(1008, "too many connections")
        await super().open(kernel_id)

    def on_message(self, message: bytes | str) -> None:
        """Pass on what a page needs, drop other types, and close on what no page sends."""
        try:
            frame = parse_page_message(message)
        except RequestError as error:
            self.log.info("Closed a websocket after a malformed message: %s", error)
            self.close(1002, "malformed message")
            return
        if not is_allowed(frame):
            self.log.info("Dropped a message of type %.40r", frame.header["msg_type"])
        elif self._backlog.add(frame.header["msg_id"], len(message)):
            super().on_message(message)
        else:
            self.close(1008, "too much at once")

    def write_message(self, message: bytes | dict[str, Any], binary: bool = False) -> Any:
        """Send the page a message of its kernel, as long as the page reads.

        What comes for a websocket that is just closing is dropped. Jupyter Server packs it in its
        older form, in which Voilà would look for a header for ever.
        """
        if self.ws_connection is None or self.selected_subprotocol != PROTOCOL:
            return None
        if isinstance(message, bytes):
            kind, parent, content = parse_kernel_message(message)
            if content.get("execution_state") == "idle":
                self._backlog.done(str(parent.get("msg_id", "")))
            redacted = redact_traceback(message, kind, content)
            if redacted is not message:
                self.log.warning("Kept from the page: %s", content.get("ename", "a traceback"))
            if redacted is None:
                return None
            message = redacted
        try:
            sent = super().write_message(message, binary)
        except WebSocketClosedError:
            return None
        except StreamBufferFullError:
            self.log.info("Closed the websocket of a page that does not read.")
            self.ws_connection.stream.close()
            return None
        if sent is not None:  # nobody awaits it, and on a closed websocket it always fails
            sent.add_done_callback(lambda future: future.cancelled() or future.exception())
        return sent

    def on_close(self) -> None:
        """Disconnect; the kernel manager shuts the kernel down if it is needed no more."""
        connections = self._connections.get(self.kernel_id, [])
        if self in connections:
            connections.remove(self)
        if not connections:
            self._connections.pop(self.kernel_id, None)
        super().on_close()


class HealthHandler(RequestHandler):
    """Says whether the server works; starts no kernel."""

    def initialize(self, kernels: VisitorKernelManager) -> None:
        """Set the kernels that have to work."""
        self.kernels = kernels

    def get(self) -> None:
        """Answer with 200, or 503 when nothing gets done."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_status(200 if self.kernels.works else 503)
        self.write("ok\n" if self.kernels.works else "stuck\n")


class MetricsHandler(RequestHandler):
    """Serves the metrics for Prometheus, on a port of its own."""

    def initialize(self, kernels: VisitorKernelManager) -> None:
        """Set the kernels whose metrics are served."""
        self.kernels = kernels

    def get(self) -> None:
        """Answer."""
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.write(self.kernels.metrics.text())


def install(voila: Voila, kernels: PageKernelManager) -> None:
    """Add this project's handlers, limits and static files to Voilà's web application.

    Parameters
    ----------
    voila : voila.app.Voila
        Configured, but without handlers yet: Voilà creates them after its kernel manager.
    kernels : PageKernelManager
        Its kernels.
    """
    if kernels.template and "template" not in voila.config.VoilaConfiguration:
        voila.voila_configuration.template = kernels.template
    static_files.install(voila)
    notebook_renderer.VoilaExporter = PageExporter
    # Jupyter's error page asks for an icon there; Voilà does not set where.
    voila.tornado_settings = {
        "static_path": DEFAULT_STATIC_FILES_PATH,
        "static_url_prefix": url_path_join(voila.server_url, "/voila/static/"),
        **voila.tornado_settings,
    }
    init_handlers = voila.init_handlers

    def init_handlers_with_ours() -> list[Any]:
        voila.app.listen = partial(voila.app.listen, **LISTENING)
        health = (url_path_join(voila.server_url, "/healthz"), HealthHandler, {"kernels": kernels})
        # First: Voilà's own page matches every address.
        return [health, *map(_ours, init_handlers())]

    voila.init_handlers = init_handlers_with_ours
    if kernels.metrics_port:
        routes = [("/metrics", MetricsHandler, {"kernels": kernels})]
        Application(routes).listen(kernels.metrics_port, kernels.metrics_address)
        voila.log.info(
            "Metrics at http://%s:%d/metrics", kernels.metrics_address, kernels.metrics_port
        )


_HEARTBEAT = "<script>window.voila_heartbeat()</script>\n"
_HANDLERS = {TornadoVoilaHandler: PageHandler, VoilaKernelWebsocketHandler: ChannelsHandler}


def _ours(rule: tuple[Any, ...]) -> tuple[Any, ...]:
    """Replace Voilà's handler in a rule by ours, whatever its pattern and arguments."""
    pattern, handler, *arguments = rule
    return (pattern, _HANDLERS.get(handler, handler), *arguments)
