"""What stands between strangers and Voilà: options, limits, and the manager that installs them.

Voilà has no interface for that, but it creates its kernel manager before its handlers: so
:class:`PageKernelManager`, which voila.json names, calls :func:`install`. What a page does not need
is refused here, be it an address, a request's size or a message to the kernel (docs/security.md).
"""

from __future__ import annotations

import contextlib
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import zmq
from jupyter_server import DEFAULT_STATIC_FILES_PATH
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.services.kernels.handlers import KernelHandler
from jupyter_server.utils import url_path_join
from tornado.ioloop import IOLoop
from tornado.web import Application, ErrorHandler, RedirectHandler
from traitlets import Integer, TraitError, Unicode, default
from voila import notebook_renderer
from voila.app import Voila
from voila.tornado.handler import TornadoVoilaHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler
from zmq.eventloop.zmqstream import ZMQStream

from icon_classifier.kernels.manager import VisitorKernelManager
from icon_classifier.page import feedback
from icon_classifier.server import origins, preview, static_files
from icon_classifier.server.channels import MAX_UNREAD, ChannelsHandler
from icon_classifier.server.exporter import PageExporter
from icon_classifier.server.handlers import (
    HealthHandler,
    MetricsHandler,
    NoCookies,
    PageHandler,
    PlainErrors,
    RobotsHandler,
    Visitors,
)
from icon_classifier.server.listener import MAX_PENDING, LongAddress, PageServer
from icon_classifier.system import logs, memory

REQUEST_LIMITS = {"max_body_size": 2**16, "idle_connection_timeout": 60.0, "body_timeout": 20.0}
"""Limits on requests, in bytes and seconds: pages send photos over the websocket, and next to
nothing in the body of a request. Tornado itself keeps 100 MB for each request that announces
them."""

MAX_DESCRIPTORS = 2**16
"""File descriptors that this process asks for; the default is often 1,024."""

HEAD_SECONDS = 10.0
"""How long a request's head may take where no proxy waits for slow ones. A proxy keeps connections
for its next requests; it would meet one that is just being closed."""

MAX_OFFLINE = 2**23
"""Bytes that are kept for all pages that have lost their connection; a page's answers have some 100
kB."""


class WebAddress(Unicode[str, str | bytes]):
    """An option that is an http or https address, or empty."""

    def validate(self, obj: object, value: object) -> str:
        """Return the address; called by traitlets for each value, the default's too."""
        address = super().validate(obj, value)
        if address and not _WEB_ADDRESS.fullmatch(address):
            raise TraitError(f"expected an http or https address as {self.name}, got {address!r}")
        return address


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

    trusted_proxies = Integer(
        min=0,
        help="Number of proxies in front of the server, each of which adds to X-Forwarded-For; "
        "the variable PROXIES, or none.",
    ).tag(config=True)
    feedback_folder = Unicode(
        help="Folder for photos whose visitors say what they show, below the notebook's or "
        "absolute; the variable FEEDBACK_FOLDER, or none: the page then does not ask.",
    ).tag(config=True)
    feedback_max_bytes = Integer(
        min=0,
        help="Bytes that this folder may have; the variable FEEDBACK_MAX_BYTES, or 500 MB.",
    ).tag(config=True)
    site_url = WebAddress(
        help="Address of the page as a static site, which a full page and an ended one offer; the "
        "variable SITE_URL, or none.",
    ).tag(config=True)

    @default("preload")
    def _preload(self) -> list[str]:
        return ["icon_classifier.page.ui", "icon_classifier.model.opening:open_model"]

    @default("warm_up_visit")
    def _warm_up_visit(self) -> str:
        return "icon_classifier.server.visitor:play_visit"

    @default("trusted_proxies")
    def _trusted_proxies(self) -> int:
        return _number_of("PROXIES", 0)

    @default("feedback_folder")
    def _feedback_folder(self) -> str:
        return os.environ.get(feedback.FOLDER, "")

    @default("feedback_max_bytes")
    def _feedback_max_bytes(self) -> int:
        return _number_of(feedback.BYTES, feedback.MAX_BYTES)

    @default("site_url")
    def _site_url(self) -> str:
        return os.environ.get("SITE_URL", "")

    def __init__(self, **kwargs: Any) -> None:
        try:
            # Read before the kernels' parent is started: none is left if a variable is refused.
            self.trusted_proxies, self.feedback_max_bytes, self.site_url  # noqa: B018
            super().__init__(**kwargs)
        except TraitError as error:
            raise SystemExit(f"This page cannot be served: {error}") from error
        if self.feedback_folder:  # for the kernels, which get this server's environment
            folder = Path(self.root_dir, Path(self.feedback_folder).expanduser())
            os.environ[feedback.FOLDER] = str(folder)
            os.environ[feedback.BYTES] = str(self.feedback_max_bytes)
            self.log.info("Photos whose visitors say what they show are kept in %s.", folder)
        # Of a kernel that sends more than any page may have nothing more is received.
        self.context.setsockopt(zmq.MAXMSGSIZE, MAX_UNREAD)
        self.metrics.add_count("predictions", "Photos answered in forked kernels.", self.take_count)
        if isinstance(self.parent, Voila):
            install(self.parent, self)

    def start_buffering(
        self, kernel_id: str, session_key: str, channels: dict[str, ZMQStream]
    ) -> None:
        """Keep a kernel's messages for a page that has lost its connection.

        Where all such pages have too many, the kernel that has most of them is ended.
        """
        super().start_buffering(kernel_id, session_key, channels)  # type: ignore[no-untyped-call]
        kept = self._kernel_buffers[kernel_id]
        kept["size"] = 0

        def keep(channel: str, parts: list[bytes]) -> None:
            kept["buffer"].append((channel, parts))
            kept["size"] += sum(map(len, parts))
            sizes = {key: other["size"] for key, other in self._kernel_buffers.items()}
            if sum(sizes.values()) > MAX_OFFLINE:
                self._end_offline(max(sizes, key=sizes.__getitem__))

        for channel, stream in channels.items():
            stream.on_recv(partial(keep, channel))

    def _end_offline(self, kernel_id: str) -> None:
        self._kernel_buffers[kernel_id]["buffer"].clear()
        self.stop_buffering(kernel_id)  # type: ignore[no-untyped-call]
        self.log.info("Ended the kernel of a page that has lost its connection.")
        IOLoop.current().add_callback(self.shutdown_kernel, kernel_id, now=True)


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
    voila.base_url = url_path_join("/", voila.base_url, "/")
    voila.server_url = url_path_join("/", voila.server_url, "/")
    logs.install(voila.log)
    _raise_descriptor_limit()
    memory.return_freed()
    # The notebooks are the owner's and run anyway. That Jupyter has not saved them on this machine
    # would be a warning at each visit.
    voila.contents_manager.mark_trusted_cells = lambda *_: None
    is_open = not any(name in voila.config for name in _LOGINS) and not (
        voila.token or voila.auto_token
    )
    if is_open:
        voila.identity_provider_class = Visitors
    static_files.install(voila, kernels.site_url)
    notebook_renderer.VoilaExporter = PageExporter
    # Jupyter's error page asks for an icon there; Voilà does not set where.
    voila.tornado_settings = {
        "static_path": DEFAULT_STATIC_FILES_PATH,
        "static_url_prefix": url_path_join(voila.server_url, "/voila/static/"),
        **voila.tornado_settings,
    }
    init_handlers = voila.init_handlers

    def listen(port: int, address: str = "") -> PageServer:
        limits = REQUEST_LIMITS
        if not kernels.trusted_proxies:
            limits = limits | {"idle_connection_timeout": HEAD_SECONDS}
        # The pages of Voilà's own templates send a form when they are left.
        forms = voila.voila_configuration.template != static_files.SLIM
        server = PageServer(voila.app, proxies=kernels.trusted_proxies, forms=forms, **limits)
        server.listen(port, address, backlog=MAX_PENDING)
        return server

    def init_handlers_with_ours() -> list[Any]:
        voila.app.listen = listen
        # First: Voilà's own page matches every address.
        ours = [
            (LongAddress(), ErrorHandler, {"status_code": 414}),
            (url_path_join(voila.server_url, "/healthz"), HealthHandler, {"kernels": kernels}),
            ("/robots.txt", RobotsHandler),
            (
                url_path_join(voila.server_url, preview.IMAGE),
                preview.ExampleHandler,
                {"folder": voila.root_dir},
            ),
        ]
        if prefix := voila.server_url.rstrip("/"):
            ours.append((prefix, RedirectHandler, {"url": voila.base_url, "permanent": False}))
        return [*ours, *(_ours(rule, is_open) for rule in init_handlers())]

    voila.init_handlers = init_handlers_with_ours
    if kernels.metrics_port:
        routes = [("/metrics", MetricsHandler, {"kernels": kernels})]
        Application(routes).listen(kernels.metrics_port, kernels.metrics_address)
        voila.log.info(
            "Metrics at http://%s:%d/metrics", kernels.metrics_address, kernels.metrics_port
        )


def _number_of(variable: str, default: int) -> int:
    text = os.environ.get(variable) or default
    try:
        return int(text)
    except ValueError as error:
        raise TraitError(f"expected a number in the variable {variable}, got {text!r}") from error


_HANDLERS = {
    KernelHandler: origins.KernelStateHandler,
    TornadoVoilaHandler: PageHandler,
    VoilaKernelWebsocketHandler: ChannelsHandler,
}
_WEB_ADDRESS = re.compile(r"https?://[^\s/?#]\S*", re.IGNORECASE)
_LOGINS = ("IdentityProvider", "PasswordIdentityProvider")


def _ours(rule: tuple[Any, ...], is_open: bool) -> tuple[Any, ...]:
    """Replace Voilà's handler in a rule by ours, whatever its pattern and arguments.

    Errors are short. Where there is no login, Jupyter's handlers set no cookies.
    """
    pattern, handler, *arguments = rule
    handler = _HANDLERS.get(handler, handler)
    if issubclass(handler, JupyterHandler):
        mixins = (PlainErrors, origins.SameOrigin, *((NoCookies,) if is_open else ()))
        handler = type(handler.__name__, (*mixins, handler), {})
    return (pattern, handler, *arguments)


def _raise_descriptor_limit() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on Windows
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
