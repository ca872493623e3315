"""Whether a websocket comes from this server's own page, and what a proxy withholds of it."""

from __future__ import annotations

from weakref import WeakSet

from jupyter_client.manager import KernelManager
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.services.kernels.handlers import KernelHandler
from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError

WITHHELD = 421
"""The status that tells a page that a proxy withholds what its websocket needs; it then says so."""

_withheld: WeakSet[KernelManager] = WeakSet()


class SameOrigin(JupyterHandler):
    """Mixed into Jupyter's handlers, for which site and site:80 are two hosts."""

    def check_origin(self, *origin: str) -> bool:
        """Return whether a request comes from a page of this host; called by Jupyter's handlers."""
        try:
            return is_same_host(self.request) or super().check_origin(*origin)
        except ValueError:  # no address, such as http://[
            return False


class KernelStateHandler(KernelHandler):
    """Tells a page whose websocket has failed what has become of its kernel."""

    async def get(self, kernel_id: str) -> None:
        """Answer; with :data:`WITHHELD` if the kernel is there but no websocket can reach it."""
        kernels = self.kernel_manager
        if kernel_id in kernels and kernels.get_kernel(kernel_id) in _withheld:
            raise HTTPError(WITHHELD, reason="A proxy withholds the WebSocket")
        await super().get(kernel_id)  # type: ignore[misc]


def is_same_host(request: HTTPServerRequest) -> bool:
    """Return whether the page that makes a request is of the host that the request names."""
    origin = request.headers.get("Origin", "").lower().partition("://")[2]
    host = request.headers.get("Host", "").lower()
    return bool(origin) and _without_default_port(origin) == _without_default_port(host)


def withheld(request: HTTPServerRequest, kernel: KernelManager) -> str:
    """Return what a proxy withholds of a page's request for a websocket; empty if nothing.

    The page of this kernel is told, too, when it asks for the kernel's state.
    """
    reason = ""
    if "Sec-WebSocket-Key" in request.headers and "Upgrade" not in request.headers:
        reason = "the proxy in front of this server does not pass WebSockets on (Upgrade)"
    elif "Origin" in request.headers and not is_same_host(request):
        reason = (
            f"the page is at {request.headers['Origin']}, but the proxy in front of this server "
            f"names the host {request.headers.get('Host')!r}: let it pass Host on"
        )
    if reason:
        _withheld.add(kernel)
    return reason


def _without_default_port(host: str) -> str:
    return host.removesuffix(":80").removesuffix(":443")
