"""The one place that hooks into Voilà's web application.

Voilà has no interface for that, but it makes its kernel manager before its handlers: so
:class:`icon_classifier.kernels.VisitorKernelManager` calls :func:`install`.

Which messages a page may send to its kernel is Voilà's own list, ``allowed_message_types`` of the
kernel manager: widgets' messages only, nothing that runs code.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from jupyter_server import DEFAULT_STATIC_FILES_PATH
from jupyter_server.utils import url_path_join
from tornado.web import Application, HTTPError, RequestHandler
from voila import notebook_renderer
from voila.app import Voila
from voila.tornado.handler import TornadoVoilaHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

from icon_classifier import delivery
from icon_classifier.exporter import PageExporter

if TYPE_CHECKING:
    from icon_classifier.kernels import VisitorKernelManager

__all__ = [
    "ChannelsHandler",
    "HealthHandler",
    "MetricsHandler",
    "PageHandler",
    "install",
    "is_well_formed",
]

PROTOCOL = "v1.kernel.websocket.jupyter.org"
"""The one form of messages that a page may speak with its kernel (Jupyter Server's own name)."""

RETRY_SECONDS = 10
"""After this long a visitor who found no room knocks again."""

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

    def _refuse(self) -> None:
        self.set_status(503)
        self.set_header("Retry-After", str(RETRY_SECONDS))
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "text/html; charset=utf-8")
        address = html.escape(self.request.uri or "")
        self.finish(_BUSY.format(seconds=RETRY_SECONDS, address=address))


class ChannelsHandler(VoilaKernelWebsocketHandler):  # type: ignore[misc]
    """A page's line to its kernel, for well-formed messages only.

    Voilà 0.5.13 and Jupyter Server 2.21 take the first eight bytes of a message for the number of
    its parts and make a list of so many, whatever they say. One message in Jupyter's older form, or
    a forged one, would fill the memory of the server and stop it for everybody.
    """

    async def get(self, kernel_id: str) -> None:
        """Open the line, if the page speaks the form that can be checked."""
        offered = self.request.headers.get("Sec-WebSocket-Protocol", "")
        if PROTOCOL not in (name.strip() for name in offered.split(",")):
            raise HTTPError(400, f"expected the subprotocol {PROTOCOL}, got {offered!r:.80}")
        await super().get(kernel_id=kernel_id)

    def on_message(self, message: bytes | str) -> None:
        """Pass a well-formed message on; hang up on any other."""
        if isinstance(message, bytes) and is_well_formed(message):
            super().on_message(message)
        else:
            self.close(1002, "malformed message")


def is_well_formed(message: bytes) -> bool:
    """Tell whether a message holds the parts that its head promises.

    Parameters
    ----------
    message : bytes
        Eight bytes each, little-endian: the number of offsets, then the offsets in rising order
        from the end of the head to the end of the message; a channel and four parts of JSON lie
        between them, and any number of buffers.
    """
    count = int.from_bytes(message[:8], "little")
    head = 8 * (count + 1)
    if count < 6 or head > len(message):
        return False
    offsets = [int.from_bytes(message[i : i + 8], "little") for i in range(8, head, 8)]
    return offsets[0] == head and offsets[-1] == len(message) and offsets == sorted(offsets)


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
