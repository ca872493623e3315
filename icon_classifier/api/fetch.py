"""Fetch a photo from an address that a stranger named, without being led inside.

The checks stand where the connection is made: a name is resolved once, every address of it is
checked, and the connection goes to the very address that was checked, while the Host header and the
name in TLS stay those of the URL. So a name that resolves to something else a moment later (DNS
rebinding) gains nothing. See OWASP's "Server-Side Request Forgery Prevention Cheat Sheet".
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore
import httpx

from icon_classifier import __version__
from icon_classifier.api.addresses import is_public
from icon_classifier.api.settings import ApiSettings
from icon_classifier.errors import BusyError, EmptyImageError, FetchError, ImageTooLargeError

PORTS = (80, 443, 8080, 8443)
"""Ports that are called: where web servers listen; others are services of another kind."""

_MAX_URL = 2048
_CONNECT_SECONDS = 4.0
_RESOLVERS = 8

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Name and port to addresses."""

# Threads of its own: names that resolve slowly must not take those of others.
_threads = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolve")


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system for the addresses of a name."""

    def ask() -> list[str]:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [str(entry[4][0]) for entry in found]

    return await asyncio.get_running_loop().run_in_executor(_threads, ask)


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only.

    Parameters
    ----------
    hosts : iterable of str
        Names whose addresses may be private, and whose port may be any.
    resolver : callable, optional
        Name and port to addresses.
    inner : httpcore.AsyncNetworkBackend, optional
        What connects to an address.
    """

    def __init__(
        self,
        hosts: Iterable[str] = (),
        resolver: Resolver = resolve,
        inner: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._resolve = resolver
        self._inner = inner or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check every address, connect to one of them."""
        trusted = host.lower().rstrip(".") in self._hosts
        if not trusted and port not in PORTS:
            raise FetchError(f"port {port} of {host} is not one of a web server")
        try:
            addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except (OSError, UnicodeError) as error:
            raise FetchError(f"{host} has no address: {error}") from error
        # One bad address is enough to refuse: which one is taken must not be left to chance.
        refused = [] if trusted else [item for item in addresses if not is_public(item)]
        if refused or not addresses:
            raise FetchError(f"{host} leads to {refused}, not to the public internet")
        failure: Exception = FetchError(f"{host} does not answer")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(
                    address, port, _CONNECT_SECONDS, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: nobody outside has business with a socket of this machine."""
        raise FetchError(f"a socket of this machine was asked for: {path}")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._inner.sleep(seconds)


class _Stream(httpx.AsyncByteStream):
    """The body of an answer, as httpx wants it."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._response.aiter_stream():
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


class _Transport(httpx.AsyncBaseTransport):
    """httpx's own transport has no place for another network backend; this one has."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend, context: ssl.SSLContext) -> None:
        self._pool = httpcore.AsyncConnectionPool(ssl_context=context, network_backend=backend)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        response = await self._pool.handle_async_request(
            httpcore.Request(
                request.method, url, headers=request.headers.raw, extensions=request.extensions
            )
        )
        return httpx.Response(response.status, headers=response.headers, stream=_Stream(response))

    async def aclose(self) -> None:
        await self._pool.aclose()


class Fetcher:
    """Fetches photos, within limits of size, time, redirects and number.

    Parameters
    ----------
    settings : ApiSettings
        The limits.
    backend : httpcore.AsyncNetworkBackend, optional
        What connects; by default a :class:`PinnedBackend` for the hosts of the settings.
    context : ssl.SSLContext, optional
        Which certificates are believed; by default the usual ones.
    """

    def __init__(
        self,
        settings: ApiSettings,
        *,
        backend: httpcore.AsyncNetworkBackend | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._backend = backend or PinnedBackend(settings.fetch_hosts)
        self._context = context or httpx.create_ssl_context(trust_env=False)
        self._active = 0

    async def fetch(self, url: str) -> bytes:
        """Fetch what is at an address.

        Parameters
        ----------
        url : str
            http or https, without user name and password.

        Returns
        -------
        bytes
            At most ``max_bytes``; whether it is a photo shows when it is decoded.

        Raises
        ------
        FetchError
            If the address must not be called, does not answer in time, or answers with an error.
        ImageError
            If nothing comes, or more than allowed.
        BusyError
            If too many photos are being fetched already.
        """
        if self._active >= self._settings.fetch_parallel:
            raise BusyError(f"{self._active} photos are being fetched already")
        self._active += 1
        try:
            async with asyncio.timeout(self._settings.fetch_seconds):
                return await self._fetch(url)
        except TimeoutError as error:
            raise FetchError(
                f"{url} took longer than {self._settings.fetch_seconds} s",
                words="The picture at this address took too long; please try another one.",
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise FetchError(f"{url}: {error!r}") from error
        except tuple(_HTTPCORE_ERRORS) as error:
            raise FetchError(f"{url}: {error!r}") from error
        finally:
            self._active -= 1

    async def _fetch(self, url: str) -> bytes:
        # A client for each photo: no cookie and no connection of one visitor serves another.
        # trust_env is off: no proxy of the environment, no password from ~/.netrc.
        transport = _Transport(self._backend, self._context)
        headers = {
            "Accept": "image/*",
            "Accept-Encoding": "identity",  # nothing that could swell when unpacked
            "User-Agent": f"icon-classifier/{__version__}",
        }
        async with httpx.AsyncClient(
            transport=transport, trust_env=False, follow_redirects=False, headers=headers
        ) as client:
            target = _checked(httpx.URL(url) if len(url) <= _MAX_URL else None)
            for _ in range(self._settings.fetch_redirects + 1):
                client.cookies.clear()
                async with client.stream("GET", target, timeout=None) as response:
                    if response.has_redirect_location:
                        target = _checked(target.join(response.headers["location"]))
                        continue
                    return await self._body(response)
        raise FetchError(f"{url} redirects more than {self._settings.fetch_redirects} times")

    async def _body(self, response: httpx.Response) -> bytes:
        if response.status_code != 200:
            raise FetchError(
                f"{response.url} answers {response.status_code}",
                words="There is no picture at this address "
                f"(its server answers {response.status_code}); please check the address.",
            )
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise FetchError(f"{response.url} sends a compressed answer")
        most = self._settings.max_bytes
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > most:
                raise ImageTooLargeError(f"{response.url} sends more than {most} bytes")
        if not data:
            raise EmptyImageError(f"{response.url} sends nothing")
        return bytes(data)


_HTTPCORE_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    httpcore.ConnectionNotAvailable,
)


def _checked(url: httpx.URL | None) -> httpx.URL:
    """Let through only what could be the address of a public picture."""
    if url is None:
        raise FetchError(f"the address is longer than {_MAX_URL} characters")
    if url.scheme not in ("http", "https") or not url.host:
        raise FetchError(
            f"expected an address of http or https, got {url}",
            words="Please give an address that starts with http:// or https://.",
        )
    if url.userinfo:
        raise FetchError("user name and password in an address are not passed on")
    return url
