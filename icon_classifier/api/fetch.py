"""Download a photo from a URL that a client sent, without server-side request forgery.

Addresses are checked where the connection is made: a name is resolved once, all its addresses are
checked, and the connection goes to an address that was checked, while the Host header and the TLS
server name stay those of the URL. A name that resolves to something else a moment later (DNS
rebinding) therefore changes nothing. See OWASP's "Server-Side Request Forgery Prevention Cheat
Sheet".
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore
import httpx

from icon_classifier import __version__
from icon_classifier.api.settings import ApiSettings
from icon_classifier.errors import EmptyImageError, FetchError, ImageTooLargeError

ALLOWED_PORTS = (80, 443, 8080, 8443)
"""Ports of web servers; anything else would reach services of another kind."""

MAX_URL_LENGTH = 2048

_MAX_READ = 2**14
"""Bytes that are read at a time: a host may send 25 bytes for each answer that another follows."""

_MAX_CHUNKS = 200
"""Pieces of a body, beyond one for each 512 bytes: each takes 50 µs, in which nobody else is
answered."""

_CONNECT_TIMEOUT = 4.0  # seconds, for each address
_MAX_RESOLVER_THREADS = 64
"""More than the downloads within half a minute: a name's resolution cannot be broken off, and some
resolvers take that long to give up."""

_BLOCKED_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        # Python's is_global follows IANA's registries, but differs between its own patch releases;
        # these are blocked whatever it says.
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("192.88.99.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # Azure's platform endpoint: a public address, reachable from every VM
        *("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"),  # IPv4 embedded in IPv6
        *("2001::/32", "2002::/16"),  # Teredo and 6to4: likewise
        "3fff::/20",  # for documentation (RFC 9637), which Python 3.11 does not know
        *("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)

_ISATAP = (0x00005EFE, 0x02005EFE)
"""RFC 5214: the upper half of an interface identifier whose lower half is an IPv4 address."""

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Resolves a host name and a port to addresses."""

# Not the default executor: names that resolve slowly must not block other work there.
_resolver_threads = ThreadPoolExecutor(_MAX_RESOLVER_THREADS, thread_name_prefix="resolve")


def is_public(address: str) -> bool:
    """Check whether an address belongs to the public internet.

    Loopback, private, link-local, multicast and reserved addresses, the metadata endpoints of
    clouds, and every IPv6 form that embeds an IPv4 address do not.

    Parameters
    ----------
    address : str
        IPv4 or IPv6, as a resolver returns it.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if any(parsed in network for network in _BLOCKED_NETWORKS if network.version == parsed.version):
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and (
        parsed.scope_id is not None  # "%eth0" names an interface of this machine
        or (int(parsed) >> 32) & 0xFFFFFFFF in _ISATAP
    ):
        return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver for the addresses of a name."""

    def look_up() -> list[str]:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [str(entry[4][0]) for entry in found]

    return await asyncio.get_running_loop().run_in_executor(_resolver_threads, look_up)


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only.

    Parameters
    ----------
    hosts : iterable of str
        Names that are exempt: their addresses may be private and their port may be any.
    resolver : callable, optional
        Resolves a host name and a port to addresses.
    inner : httpcore.AsyncNetworkBackend, optional
        Connects to an address.
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
        """Resolve the host, check every address and connect to the first that answers."""
        exempt = host.lower().rstrip(".") in self._hosts
        if not exempt and port not in ALLOWED_PORTS:
            raise FetchError(f"expected a port of {ALLOWED_PORTS}, got {port} of {host}")
        try:
            addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except (OSError, UnicodeError) as error:
            raise FetchError(f"{host} cannot be resolved: {error}") from error
        # One address that is not public is enough to refuse: a host must not get to choose.
        refused = [] if exempt else [address for address in addresses if not is_public(address)]
        if refused or not addresses:
            raise FetchError(
                f"expected public addresses of {host}, got {refused}",
                words="This address is not on the public internet; "
                "please use one that everybody can open.",
            )
        failure: Exception = FetchError(f"{host} does not answer")
        for address in addresses:
            try:
                stream = await self._inner.connect_tcp(
                    address, port, _CONNECT_TIMEOUT, local_address, socket_options
                )
                return _Slices(stream)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Slices(httpcore.AsyncNetworkStream):
    """A connection of which little is read at a time, so that others are answered meanwhile."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(min(max_bytes, _MAX_READ), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(self, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        return _Slices(await self._stream.start_tls(*args, **kwargs))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Stream(httpx.AsyncByteStream):
    """The body of an httpcore response in the form that httpx expects."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._response.aiter_stream():
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


class _Transport(httpx.AsyncBaseTransport):
    """An httpx transport with a network backend of our choice; httpx's own does not take one."""

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
    """Downloads photos, with limits on size, time and redirects.

    Parameters
    ----------
    settings : ApiSettings
        The limits.
    backend : httpcore.AsyncNetworkBackend, optional
        Makes connections; by default a :class:`PinnedBackend` for the hosts of the settings.
    context : ssl.SSLContext, optional
        The trusted certificates; by default httpx's.
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

    async def fetch(self, url: str, reserve: Callable[[int], None] = lambda _: None) -> bytes:
        """Download what a URL points to.

        Parameters
        ----------
        url : str
            http or https, without user name and password.
        reserve : callable, optional
            Reserves a number of bytes, see :meth:`.limits.Budget.reservation`.

        Returns
        -------
        bytes
            At most ``max_bytes``; decoding shows whether it is a photo.

        Raises
        ------
        FetchError
            If the URL is not allowed, does not answer in time, or answers with an error.
        ImageError
            If the body is empty or too large.
        BusyError
            If all requests together would take too much memory.
        """
        try:
            async with asyncio.timeout(self._settings.fetch_seconds):
                return await self._fetch(url, reserve)
        except TimeoutError as error:
            raise FetchError(
                f"{url} took longer than {self._settings.fetch_seconds} s",
                words="The picture at this address took too long to load; please try another one.",
            ) from error
        except _FETCH_ERRORS as error:
            raise FetchError(f"{url}: {error!r}") from error

    async def _fetch(self, url: str, reserve: Callable[[int], None]) -> bytes:
        # A client for each photo: no cookie and no connection is shared between visitors.
        # trust_env is off: no proxy of the environment, no password from ~/.netrc.
        transport = _Transport(self._backend, self._context)
        headers = {
            "Accept": "image/*",
            "Accept-Encoding": "identity",  # a compressed body could expand without limit
            "User-Agent": f"icon-classifier/{__version__}",
        }
        async with httpx.AsyncClient(
            transport=transport, trust_env=False, follow_redirects=False, headers=headers
        ) as client:
            if len(url) > MAX_URL_LENGTH:
                raise FetchError(f"expected at most {MAX_URL_LENGTH} characters, got {len(url)}")
            target = _check_url(httpx.URL(url))
            for _ in range(self._settings.fetch_redirects + 1):
                client.cookies.clear()
                async with client.stream("GET", target, timeout=None) as response:
                    if response.has_redirect_location:
                        target = _check_url(target.join(response.headers["location"]))
                        continue
                    return await self._read_body(response, reserve)
        raise FetchError(f"{url} redirects more than {self._settings.fetch_redirects} times")

    async def _read_body(self, response: httpx.Response, reserve: Callable[[int], None]) -> bytes:
        if response.status_code != 200:
            raise FetchError(
                f"expected status 200 from {response.url}, got {response.status_code}",
                words="There is no picture at this address "
                f"(its server answered {response.status_code}); please check the address.",
            )
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise FetchError(f"expected an uncompressed body from {response.url}, got {encoding}")
        max_bytes = self._settings.max_bytes
        data = io.BytesIO()
        chunks = 0
        async for chunk in response.aiter_raw():
            chunks += 1
            if chunks > _MAX_CHUNKS + data.tell() // 512:
                raise FetchError(f"expected larger chunks from {response.url}")
            reserve(len(chunk))
            data.write(chunk)
            if data.tell() > max_bytes:
                raise ImageTooLargeError(
                    f"expected at most {max_bytes} bytes from {response.url}, got more"
                )
        if not data.tell():
            raise EmptyImageError(f"expected a photo from {response.url}, got an empty body")
        return data.getvalue()


_FETCH_ERRORS = (
    UnicodeError,  # a host name of which idna makes nothing
    ssl.SSLError,  # after the handshake; httpcore translates those of the handshake alone
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    httpcore.ConnectionNotAvailable,
)


def _check_url(url: httpx.URL) -> httpx.URL:
    """Return the URL if its scheme is http or https and it carries no credentials."""
    if url.scheme not in ("http", "https") or not url.host:
        raise FetchError(
            f"expected an http or https URL, got {url}",
            words="Please enter an address that starts with http:// or https://.",
        )
    if url.userinfo:
        raise FetchError("expected a URL without user name and password, got one with them")
    return url
