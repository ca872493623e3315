"""The one place that hooks into Voilà's web application.

Voilà has no interface for that: it makes its application after the kernel manager, which therefore
calls :func:`install` when the event loop runs.
"""

from __future__ import annotations

import html
import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tornado.httpserver import HTTPServer
from tornado.routing import PathMatches, Rule, RuleRouter
from tornado.web import Application, RequestHandler
from voila.tornado.handler import TornadoVoilaHandler

if TYPE_CHECKING:
    from icon_classifier.kernels import VisitorKernelManager

__all__ = ["PageHandler", "install"]

RETRY_SECONDS = 10
"""After this long a visitor who found no room knocks again."""

_BUSY = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="{seconds}">
<title>Busy</title>
<style>
body {{ font: 1.125rem/1.5 system-ui, sans-serif; margin: 15vh auto; max-width: 34rem;
  padding: 0 1rem }}
</style>
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

    def _refuse(self) -> None:
        self.set_status(503)
        self.set_header("Retry-After", str(RETRY_SECONDS))
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "text/html; charset=utf-8")
        address = html.escape(self.request.uri or "")
        self.finish(_BUSY.format(seconds=RETRY_SECONDS, address=address))


class _HealthHandler(RequestHandler):
    """Says that the server answers; starts no kernel."""

    def get(self) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.write("ok\n")


class _MetricsHandler(RequestHandler):
    def initialize(self, kernels: VisitorKernelManager) -> None:
        self.kernels = kernels

    def get(self) -> None:
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.write(self.kernels.metrics.text())


def install(voila: Any, kernels: VisitorKernelManager) -> None:
    """Add to Voilà's web application what this project needs there.

    Parameters
    ----------
    voila : voila.app.Voila
        Listening already.
    kernels : VisitorKernelManager
        Its kernels.
    """
    application = getattr(voila, "app", None)
    if not isinstance(application, Application):
        return  # another server than Voilà's own: nothing of ours belongs there
    for rule in _rules(application.default_router):
        if rule.target is TornadoVoilaHandler:
            rule.target = PageHandler
    health = Rule(PathMatches(voila.server_url.rstrip("/") + "/healthz"), _HealthHandler)
    application.default_router.rules.insert(0, health)  # before Voilà's own, which match all
    if kernels.metrics_port:
        routes = [("/metrics", _MetricsHandler, {"kernels": kernels})]
        HTTPServer(Application(routes)).listen(kernels.metrics_port, kernels.metrics_address)
        voila.log.info(
            "Metrics at http://%s:%d/metrics", kernels.metrics_address, kernels.metrics_port
        )
    if importlib.util.find_spec("icon_classifier.delivery"):
        importlib.import_module("icon_classifier.delivery").install(voila)


def _rules(router: RuleRouter) -> Iterator[Rule]:
    for rule in router.rules:
        if isinstance(rule.target, RuleRouter):
            yield from _rules(rule.target)
        else:
            yield rule
