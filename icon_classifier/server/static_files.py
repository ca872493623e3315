"""Deliver pages and files: the slim template, compression, caching and security headers.

:mod:`.app` installs this on the Voilà server of the public page, and :mod:`.extension` a part of it
on Jupyter's own server. Apart from the template itself it works with Voilà's stock templates too.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_server import DEFAULT_STATIC_FILES_PATH
from jupyter_server.base.handlers import FileFindHandler
from jupyter_server.utils import url_path_join
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import Finish, GZipContentEncoding, HTTPError, OutputTransform, StaticFileHandler
from voila._version import __version__ as voila_version
from voila.app import Voila
from voila.paths import collect_static_paths, collect_template_paths
from voila.static_file_handler import MultiStaticFileHandler, TemplateStaticFileHandler
from voila.tornado.handler import TornadoVoilaHandler

from icon_classifier.page.texts import PAGE_TEXTS
from icon_classifier.server import preview

SLIM = "slim"
"""The name of this project's own template."""

MAX_MESSAGE = 10 * 2**20
"""Bytes of a websocket's message that tornado accepts where its settings name no other number."""

_TEMPLATE = Path(__file__).with_name(SLIM)

SLIM_POLICY = {
    "default-src": "'none'",
    # blob: for the modules of anywidgets, which arrive as text from the kernel.
    "script-src": "'self' blob:",
    "style-src": "'self'",
    # HTML widgets may carry style attributes.
    "style-src-attr": "'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "media-src": "'self' blob:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'self'",
}
"""The Content-Security-Policy of the slim page: directives and their sources."""

# What Voilà's stock page loads from other hosts.
_ICONS = "https://cdn.jsdelivr.net/npm/@fortawesome/"
_MATHJAX = "https://cdnjs.cloudflare.com/ajax/libs/mathjax/"

STOCK_POLICY = {
    "default-src": "'self'",
    # JupyterLab compiles the schemas of its settings, and the page has inline scripts.
    "script-src": f"'self' 'unsafe-inline' 'unsafe-eval' blob: {_MATHJAX}",
    "style-src": f"'self' 'unsafe-inline' {_ICONS}",
    "img-src": "'self' data: blob:",
    "media-src": "'self' blob:",
    "font-src": f"'self' data: {_ICONS} {_MATHJAX}",
    "connect-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'self'",
}
"""The same for Voilà's stock templates, which need much more."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
}

_IMMUTABLE = "public, max-age=31536000, immutable"
_REVALIDATE = "public, no-cache"

# page-3FK2ABCD.js of esbuild, remoteEntry.0f4bf8cc45ca4d5b9a5c.js of webpack
_HASHED = re.compile(r"[-.](?:[0-9A-Z]{8}|[0-9a-f]{16,64})\.\w+$|/[0-9a-f]{20,64}\.\w+$")
_PATH = re.compile(r"(?!/)[^\0-\x1f\\]*")
_TEMPLATE_PATH = re.compile(r"\w[\w.-]*/static/.")
_ENCODINGS = {"br": ".br", "gzip": ".gz"}
_FILE_HANDLERS = (FileFindHandler, MultiStaticFileHandler, TemplateStaticFileHandler)
_HEARTBEAT = "<script>window.voila_heartbeat()</script>\n"
_VERSION = hashlib.sha256(voila_version.encode()).hexdigest()[:12]


def content_security_policy(directives: dict[str, str]) -> str:
    """Join directives to the value of the header."""
    return "; ".join(f"{name} {sources}" for name, sources in directives.items())


def install(voila_app: Voila, site_url: str = "") -> None:
    """Add the slim template, headers, compression and caching to a Voilà server.

    Headers that the owner set in ``Voila.tornado_settings["headers"]`` stay as they are.

    Parameters
    ----------
    voila_app : voila.app.Voila
        Configured, but not listening and without handlers yet: the constructor of the class that
        ``VoilaConfiguration.multi_kernel_manager_class`` names is the place to call this from.
    site_url : str, optional
        Where the page as a static site is.
    """
    configuration = voila_app.voila_configuration
    if configuration.template == SLIM:
        voila_app.template_paths, voila_app.static_paths = slim_paths()
    configuration.page_config_hook = PageConfig(
        Path(voila_app.root_dir),
        voila_app.tornado_settings.get("websocket_max_message_size", MAX_MESSAGE),
        configuration.page_config_hook,
        site_url,
    )
    init_handlers = voila_app.init_handlers

    def init_handlers_with_delivery() -> list[Any]:
        # The tornado application exists from here on, without any handler.
        policy = SLIM_POLICY if configuration.template == SLIM else STOCK_POLICY
        if os.environ.get("SPACE_ID"):  # Hugging Face shows a Space in a frame of its own site
            policy = policy | {"frame-ancestors": "'self' https://huggingface.co"}
        headers = {"Content-Security-Policy": content_security_policy(policy), **_HEADERS}
        headers |= voila_app.tornado_settings.get("headers", {})
        # Jupyter's handlers take theirs from the settings, tornado's plain ones have none.
        voila_app.app.settings["headers"] = headers
        voila_app.app.settings["slim"] = configuration.template == SLIM
        voila_app.app.transforms += [partial(_Headers, headers), GZipContentEncoding]
        return with_delivery(init_handlers(), voila_app.server_url)

    voila_app.init_handlers = init_handlers_with_delivery


def slim_paths() -> tuple[list[str], list[str]]:
    """Return the folders of the slim template and of its files, each before those of Voilà's base.

    The files are served under ``/voila/static/``.
    """
    apps = ["voila", "nbconvert"]
    templates = [str(_TEMPLATE), *collect_template_paths(apps, "base", prune=True)]
    files = [str(_TEMPLATE / "static"), *collect_static_paths(apps, "base")]
    return templates, [*files, DEFAULT_STATIC_FILES_PATH]


class PageConfig:
    """Adds what the template gets: title, classes, texts, URLs, the limit on a message.

    Parameters
    ----------
    folder : pathlib.Path
        The folder of export.onnx.
    max_message : int
        Bytes that a message of the page may have.
    hook : callable or None
        The owner's own ``VoilaConfiguration.page_config_hook``; it is called last.
    site_url : str, optional
        Where the page as a static site is.
    """

    def __init__(
        self,
        folder: Path,
        max_message: int,
        hook: Callable[..., dict[str, Any]] | None = None,
        site_url: str = "",
    ) -> None:
        self._folder = folder
        self._max_message = max_message
        self._hook = hook
        self._site_url = site_url

    def __call__(self, current_page_config: dict[str, Any], **context: Any) -> dict[str, Any]:
        """Add it; called for each page and for the list of notebooks, which ignores the result."""
        base_url = f"{context['base_url'].rstrip('/')}/"
        page = preview.describe(self._folder, context["notebook_path"])
        ours = {
            "fullStaticUrl": f"{base_url}voila/static/{_VERSION}",
            "title": page.title,
            "head": page.head(base_url),
            "labels": page.labels,
            "maxMessage": self._max_message,
            "siteUrl": self._site_url,
            "texts": PAGE_TEXTS,
        }
        current_page_config.update(ours)
        if self._hook is None:
            return current_page_config
        return self._hook(current_page_config, **context)


class NotebookHandler(TornadoVoilaHandler):  # type: ignore[misc]
    """Voilà's page of a notebook, with the slim template too."""

    _left = False

    def on_connection_close(self) -> None:
        """Note that the browser has gone before the page was complete; called by tornado."""
        self._left = True
        super().on_connection_close()

    def write(self, chunk: str | bytes | dict[str, Any]) -> None:
        """Write a part of the page.

        While a kernel takes long to start, Voilà sends a script every ten seconds to keep the
        connection open. The slim page's Content-Security-Policy forbids inline scripts, and a
        comment keeps the connection open as well. Where the kernel has ended, because the page was
        left, Voilà would do so for ever.
        """
        if chunk == _HEARTBEAT:
            if self._left:
                raise Finish
            if self.voila_configuration.template == SLIM:
                chunk = "<!-- still starting -->\n"
        super().write(chunk)


class _Headers(OutputTransform):
    """Adds missing headers to every response, files and errors included."""

    def __init__(self, headers: Mapping[str, str], request: HTTPServerRequest) -> None:
        super().__init__(request)
        self._headers = headers

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Add the headers; called by tornado once per response."""
        for name, value in self._headers.items():
            headers.setdefault(name, value)
        return status_code, headers, chunk


class _FileDelivery(StaticFileHandler):
    """Mixed into Voilà's file handlers: sends compressed files, sets how long they are cached."""

    _encoding: str | None = None

    def parse_url_path(self, url_path: str) -> str:
        """Answer 404 to malformed paths, on which Voilà's handlers fail. Called by ``get``."""
        if not _PATH.fullmatch(url_path) or ".." in url_path.split("/"):
            raise HTTPError(404)
        if isinstance(self, TemplateStaticFileHandler) and not _TEMPLATE_PATH.match(url_path):
            raise HTTPError(404)
        return super().parse_url_path(url_path)

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """Prefer the compressed file beside it. Called by ``get``, once for each root."""
        path = super().validate_absolute_path(root, absolute_path)
        accepted = self.request.headers.get("Accept-Encoding", "")
        for encoding, suffix in _ENCODINGS.items():
            if path and re.search(rf"\b{encoding}\b", accepted) and Path(path + suffix).is_file():
                self._encoding = encoding
                return super().validate_absolute_path(root, path + suffix)
        return path

    def flush(self, include_footers: bool = False) -> asyncio.Future[None]:
        """Send a part of the file, then let others have their turn. Called by ``get``.

        Tornado sends 800 kB in one go where the client is fast enough.
        """
        sent = super().flush(include_footers)
        return sent if include_footers else asyncio.ensure_future(_after_others(sent))

    def get_content_type(self) -> str:
        """Return the type of the uncompressed file. Called by ``get``."""
        if self._encoding is None or self.absolute_path is None:
            return super().get_content_type()
        name = self.absolute_path.removesuffix(_ENCODINGS[self._encoding])
        return mimetypes.guess_type(name)[0] or "application/octet-stream"

    def set_headers(self) -> None:
        """Set how long the file may be cached, and its encoding. Called by ``get``."""
        super().set_headers()
        path = self.request.path
        immutable = "v" in self.request.arguments or f"/{_VERSION}/" in path or _HASHED.search(path)
        self.set_header("Cache-Control", _IMMUTABLE if immutable else _REVALIDATE)
        self.clear_header("Expires")
        if self.settings.get("slim"):  # its own files are compressed beside them
            # Compressing another of 800 kB would take as long as sending it fifteen times.
            self._transforms = [
                each for each in self._transforms if not isinstance(each, GZipContentEncoding)
            ]
            self.set_header("Vary", "Accept-Encoding")
        if self._encoding is not None:
            self.set_header("Vary", "Accept-Encoding")  # on Jupyter's server, too
            self.set_header("Content-Encoding", self._encoding)


async def _after_others(sent: asyncio.Future[None]) -> None:
    try:
        await sent
    finally:
        # An error whose traceback names it would be kept by it, and with both the open file.
        del sent
    await asyncio.sleep(0)


def with_delivery(handlers: list[Any], server_url: str) -> list[Any]:
    """Mix :class:`_FileDelivery` into the file handlers; serve static files with a version too.

    Voilà's own scripts keep their names when their contents change with a new version, so they are
    also served under a URL that contains the version.
    """
    rules = []
    for pattern, handler, *arguments in handlers:
        if issubclass(handler, _FILE_HANDLERS):
            handler = type(handler.__name__, (_FileDelivery, handler), {})
        if issubclass(handler, MultiStaticFileHandler):
            versioned = url_path_join(server_url, rf"/voila/static/{_VERSION}/(.*)")
            rules.append((versioned, handler, *arguments))
        rules.append((pattern, handler, *arguments))
    return rules
