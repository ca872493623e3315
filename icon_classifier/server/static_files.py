"""How pages travel: the slim template, compression, caching and the headers that fence a page in.

Called by :mod:`.app` for the public page that Voilà serves; it works on the stock
template too, where the slim one has not been built.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mimetypes
import os
import re
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_path
from jupyter_server.base.handlers import FileFindHandler
from jupyter_server.utils import url_path_join
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import GZipContentEncoding, HTTPError, OutputTransform, StaticFileHandler
from voila._version import __version__ as voila_version
from voila.app import Voila
from voila.static_file_handler import MultiStaticFileHandler, TemplateStaticFileHandler

from icon_classifier.errors import SettingsError

SLIM = "slim"
"""The name of the template that comes with this project."""

# Beside this package or, where it is installed elsewhere, in the folder that is served.
_HOMES = (Path(__file__).resolve().parents[2], Path.cwd())
_TEMPLATES = [home / "template" for home in _HOMES]
_DATA = next((folder for folder in _TEMPLATES if (folder / "voila").is_dir()), _TEMPLATES[0])
_BUILT = _DATA / "voila" / "templates" / SLIM / "static" / "build" / "assets.html.j2"

SLIM_POLICY = {
    "default-src": "'none'",
    # blob: carries the modules of anywidgets, which come as text over the kernel's line.
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

# What Voilà's stock page takes from other hosts.
_ICONS = "https://cdn.jsdelivr.net/npm/@fortawesome/"
_MATHJAX = "https://cdnjs.cloudflare.com/ajax/libs/mathjax/"

STOCK_POLICY = {
    "default-src": "'self'",
    # JupyterLab's parts compile the checks of their settings, and the page's scripts are inline.
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
"""The same for Voilà's stock templates, which need far more."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
}

_FOREVER = "public, max-age=31536000, immutable"
_CHECK_FIRST = "public, no-cache"

# page-3FK2ABCD.js of esbuild, remoteEntry.0f4bf8cc45ca4d5b9a5c.js of webpack
_HASHED = re.compile(r"[-.](?:[0-9A-Z]{8}|[0-9a-f]{16,64})\.\w+$|/[0-9a-f]{20,64}\.\w+$")
_PLAIN = re.compile(r"(?!/)[^\0-\x1f\\]*")
_IN_TEMPLATE = re.compile(r"\w[\w.-]*/static/.")
_PACKED = {"br": ".br", "gzip": ".gz"}
_FILE_HANDLERS = (FileFindHandler, MultiStaticFileHandler, TemplateStaticFileHandler)
_VERSION = hashlib.sha256(voila_version.encode()).hexdigest()[:12]

_log = logging.getLogger(__name__)


def content_security_policy(directives: dict[str, str]) -> str:
    """Join directives to the value of the header."""
    return "; ".join(f"{name} {sources}" for name, sources in directives.items())


def install(voila_app: Voila) -> None:
    """Make a Voilà server deliver well: template, headers, compression, caching.

    Chooses the slim template where it is configured and built, otherwise the stock one. What the
    owner set himself in ``Voila.tornado_settings["headers"]`` stays as it is.

    Parameters
    ----------
    voila_app : voila.app.Voila
        Configured, but not listening and without handlers yet: the constructor of the class that
        ``VoilaConfiguration.multi_kernel_manager_class`` names is the place to call this from.

    Raises
    ------
    SettingsError
        If the server has its handlers already.
    """
    if getattr(voila_app, "app", None) is not None:
        raise SettingsError("delivery.install must be called before Voilà's handlers are made")
    _choose_template(voila_app)
    configuration = voila_app.voila_configuration
    if configuration.page_config_hook is None:
        configuration.page_config_hook = _PageConfig(Path(voila_app.root_dir))
    init_handlers = voila_app.init_handlers

    def init_handlers_delivered() -> list[Any]:
        # The tornado application exists from here on, without any handler.
        policy = SLIM_POLICY if configuration.template == SLIM else STOCK_POLICY
        headers = {"Content-Security-Policy": content_security_policy(policy), **_HEADERS}
        headers |= voila_app.tornado_settings.get("headers", {})
        # Jupyter's handlers take theirs from the settings, tornado's plain ones have none.
        voila_app.app.settings["headers"] = headers
        voila_app.app.transforms += [partial(_Headers, headers), GZipContentEncoding]
        return _delivered(init_handlers(), voila_app.server_url)

    voila_app.init_handlers = init_handlers_delivered


def _choose_template(voila_app: Voila) -> None:
    configuration = voila_app.voila_configuration
    if configuration.template != SLIM:
        return
    if _BUILT.is_file():
        # Voilà looks for templates, and later for their files, where Jupyter's data are.
        if str(_DATA) not in jupyter_path():
            paths = [str(_DATA), os.environ.get("JUPYTER_PATH", "")]
            os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, paths))
    else:
        _log.warning(
            "The slim page is not built, so Voilà's own is served: 1.7 MB in 100 requests to a "
            "new visitor instead of 0.1 MB in 4. Build it with node: "
            "cd template && npm ci && npm run build"
        )
        configuration.template = "lab"
    voila_app.setup_template_dirs()


class _PageConfig:
    """What the template learns beside Voilà's own configuration.

    Parameters
    ----------
    folder : pathlib.Path
        Where export.onnx lies.
    """

    def __init__(self, folder: Path) -> None:
        self._model = folder / "export.onnx"

    def __call__(self, current_page_config: dict[str, Any], **about: Any) -> dict[str, Any]:
        static = f"{about['base_url'].rstrip('/')}/voila/static/{_VERSION}"
        return {**current_page_config, "fullStaticUrl": static, "labels": self._labels()}

    def _labels(self) -> list[str]:
        try:
            found = self._model.stat()
        except OSError:
            return []
        return _labels_of(self._model, found.st_mtime_ns)


@lru_cache(maxsize=4)
def _labels_of(model: Path, _: int) -> list[str]:
    """Names of the classes, read without ONNX Runtime, which the server itself has no use for."""
    # A protobuf entry: field 1, the key with its length; field 2, the value with its length.
    mark = b"\x0a\x0ficon_classifier\x12"
    data = model.read_bytes()
    start = data.rfind(mark)
    if start < 0:
        return []
    length, shift, offset = 0, 0, start + len(mark)
    while True:
        byte = data[offset]
        length |= (byte & 0x7F) << shift
        shift, offset = shift + 7, offset + 1
        if byte < 0x80:
            break
    try:
        labels = json.loads(data[offset : offset + length])["labels"]
    except (ValueError, KeyError, TypeError):
        # The kernel will say what is wrong with the file; the page only leaves out its names.
        return []
    return [str(label).replace("_", " ") for label in labels]


class _Headers(OutputTransform):
    """Sets what headers are missing on all that is served, files and errors included."""

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


class _Delivered(StaticFileHandler):
    """Mixed into Voilà's handlers of files: sends packed files, and says how long they stay."""

    _packing: str | None = None

    def parse_url_path(self, url_path: str) -> str:
        """Refuse what is no plain path; Voilà's handlers stumble over it. Called by ``get``."""
        if not _PLAIN.fullmatch(url_path) or ".." in url_path.split("/"):
            raise HTTPError(404)
        if isinstance(self, TemplateStaticFileHandler) and not _IN_TEMPLATE.match(url_path):
            raise HTTPError(404)
        return super().parse_url_path(url_path)

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """Prefer a packed neighbour; called by ``get``, and by super for each of several roots."""
        path = super().validate_absolute_path(root, absolute_path)
        accepted = self.request.headers.get("Accept-Encoding", "")
        for packing, suffix in _PACKED.items():
            if path and re.search(rf"\b{packing}\b", accepted) and Path(path + suffix).is_file():
                self._packing = packing
                return super().validate_absolute_path(root, path + suffix)
        return path

    def get_content_type(self) -> str:
        """Tell the type of what is packed."""
        if self._packing is None or self.absolute_path is None:
            return super().get_content_type()
        name = self.absolute_path.removesuffix(_PACKED[self._packing])
        return mimetypes.guess_type(name)[0] or "application/octet-stream"

    def set_headers(self) -> None:
        """Say how long the file may be kept, and how it is packed; called by ``get``."""
        super().set_headers()
        path = self.request.path
        lasts = "v" in self.request.arguments or f"/{_VERSION}/" in path or _HASHED.search(path)
        self.set_header("Cache-Control", _FOREVER if lasts else _CHECK_FIRST)
        self.clear_header("Expires")
        if self._packing is not None:
            self.set_header("Content-Encoding", self._packing)


def _delivered(handlers: list[Any], server_url: str) -> list[Any]:
    """Mix :class:`_Delivered` into the handlers of files, and give static files lasting addresses.

    Voilà's own scripts have names that stay the same when their contents change with a new version,
    so they are also served under an address with the version in it.
    """
    delivered = []
    for pattern, handler, *arguments in handlers:
        if issubclass(handler, _FILE_HANDLERS):
            handler = type(handler.__name__, (_Delivered, handler), {})
        if issubclass(handler, MultiStaticFileHandler):
            versioned = url_path_join(server_url, rf"/voila/static/{_VERSION}/(.*)")
            delivered.append((versioned, handler, *arguments))
        delivered.append((pattern, handler, *arguments))
    return delivered
