"""What requests get: the page, whether the server works, errors, and a page where it is full."""

from __future__ import annotations

import html
import re
from typing import Any

from jupyter_server.auth import IdentityProvider, User
from jupyter_server.base.handlers import JupyterHandler
from tornado.httputil import HTTPHeaders
from tornado.web import HTTPError, RequestHandler

from icon_classifier.kernels.manager import VisitorKernelManager
from icon_classifier.page import texts
from icon_classifier.server import preview
from icon_classifier.server.static_files import NotebookHandler
from icon_classifier.system.clients import client_address, client_protocol

RETRY_SECONDS = 10
"""After this long a page that was refused tries again."""

# Not the phones of CUBOT.
_ROBOT = re.compile(r"(?<!cu)bot\b|crawler|spider|preview|externalhit|^whatsapp/", re.IGNORECASE)

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
{site}</html>
"""
_SITE = '<p><a href="{address}" rel="noreferrer">{link}</a></p>\n'


def is_visit(headers: HTTPHeaders) -> bool:
    """Return whether a request is made to show the page to somebody.

    Browsers say so of themselves, except old ones; other sites' pages may ask for it as a picture,
    or before anybody has clicked. Link previews are known by their names only.
    """
    if headers.get("Sec-Purpose", headers.get("Purpose", "")).startswith("prefetch"):
        return False
    if "Sec-Fetch-Dest" in headers:
        return headers["Sec-Fetch-Dest"] in ("document", "iframe")
    return "Range" not in headers and not _ROBOT.search(headers.get("User-Agent", ""))


def is_link_preview(headers: HTTPHeaders) -> bool:
    """Return whether a request is made to show a link to the page."""
    return "Range" not in headers and bool(_ROBOT.search(headers.get("User-Agent", "")))


class PageHandler(NotebookHandler):
    """Voilà's page, for as many visitors as there is capacity for."""

    async def get(self, path: str | None = None) -> None:
        """Serve the page, or 503 when there are as many visitors as fit.

        Requests that would not show the page to a person get 403, or the link preview: each page
        costs a kernel.
        """
        if self.notebook_path and path:
            if not self._is_allowed_file(path):
                raise HTTPError(404)
            self.redirect_to_file(path)
            return
        if path and not all(map(self.contents_manager.should_list, path.split("/"))):
            raise HTTPError(404)
        headers, kernels = self.request.headers, self.kernel_manager
        if not is_visit(headers):
            self._describe(path or "")
            return
        client = client_address(
            self.request.remote_ip, headers.get_list("X-Forwarded-For"), kernels.trusted_proxies
        )
        async with kernels.reserve(client) as reserved:
            if reserved:
                await super().get(path)
            else:
                self._refuse()

    def _describe(self, path: str) -> None:
        page = preview.describe(self.contents_manager.root_dir, self.notebook_path or path)
        if not (page.title and self.current_user and is_link_preview(self.request.headers)):
            raise HTTPError(403)
        protocol = client_protocol(
            self.request.protocol,
            self.request.headers.get_list("X-Forwarded-Proto"),
            self.kernel_manager.trusted_proxies,
        )
        address = f"{protocol}://{self.request.host}{self.base_url}"
        self.finish(preview.page(page.head(address)))

    def head(self, path: str | None = None) -> None:
        """Answer a HEAD request; starts no kernel."""
        if path:
            raise HTTPError(404)

    def _is_allowed_file(self, path: str) -> bool:
        allowed = self.voila_configuration.file_allowlist
        return any(re.fullmatch(pattern, path, re.IGNORECASE) for pattern in allowed)

    def send_error(self, status_code: int = 500, **about: Any) -> None:
        """Send an error; where no kernel can be started, the page that tries again by itself."""
        if status_code == 503 and not self._headers_written:
            self._refuse(reason=texts.NOT_STARTED)
        else:
            super().send_error(status_code, **about)

    def _refuse(self, **changes: str) -> None:
        self.set_status(503)
        self.set_header("Retry-After", str(RETRY_SECONDS))
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "text/html; charset=utf-8")
        address = html.escape(self.request.uri or "")
        sentences = {
            name: text.format(seconds=RETRY_SECONDS)
            for name, text in {**texts.BUSY, **changes}.items()
        }
        url = html.escape(self.kernel_manager.site_url)
        site = _SITE.format(address=url, link=texts.OWN_BROWSER) if url else ""
        self.finish(_BUSY.format(seconds=RETRY_SECONDS, address=address, site=site, **sentences))


class PlainErrors(JupyterHandler):
    """Mixin that replaces Jupyter's error page, which blocks the event loop for 5 ms."""

    def write_error(self, status_code: int, **about: Any) -> None:
        """Write the status line; for a server error, Jupyter's full page."""
        if status_code >= 500:
            super().write_error(status_code, **about)
            return
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code}: {self._reason}\n")


class NoCookies(JupyterHandler):
    """Mixed into Jupyter's handlers, which set two cookies that the page does not need."""

    xsrf_token = b""

    def check_xsrf_cookie(self) -> None:
        """Refuse what another site's page sends; called before whatever changes something."""
        site = self.request.headers.get("Sec-Fetch-Site", "same-origin")
        if site != "same-origin" or not self.check_origin():
            raise HTTPError(403)


class Visitors(IdentityProvider):
    """Everybody is the same user, and needs no name."""

    def get_user(self, handler: RequestHandler) -> User:
        """Return the user."""
        return User("visitor")

    def get_handlers(self) -> list[tuple[str, object]]:
        """Return no handlers: nobody logs in."""
        return []


class RobotsHandler(RequestHandler):
    """Asks search engines to stay away: each visit of the page would start a kernel."""

    def get(self) -> None:
        """Answer."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.write("User-agent: *\nDisallow: /\n")


class HealthHandler(RequestHandler):
    """Says whether the server works; starts no kernel."""

    def initialize(self, kernels: VisitorKernelManager) -> None:
        """Set the kernels that have to work."""
        self.kernels = kernels

    def get(self) -> None:
        """Answer with 200, or 503 when nothing gets done."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_status(200 if self.kernels.is_healthy else 503)
        self.write("ok\n" if self.kernels.is_healthy else "stuck\n")

    head = get  # without the body, which tornado leaves out


class MetricsHandler(RequestHandler):
    """Serves the metrics for Prometheus, on a port of its own."""

    def initialize(self, kernels: VisitorKernelManager) -> None:
        """Set the kernels whose metrics are served."""
        self.kernels = kernels

    def get(self) -> None:
        """Answer."""
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.write(self.kernels.metrics.text())
