"""Fetching from real servers on this machine that stand in for public addresses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import httpcore
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from icon_classifier.api import fetch
from icon_classifier.api.fetch import Fetcher, PinnedBackend, is_public, resolve
from icon_classifier.api.settings import ApiSettings
from icon_classifier.errors import BusyError, EmptyImageError, FetchError, ImageTooLargeError

PUBLIC = "93.184.215.14"
OTHER = "151.101.1.69"

Respond = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Records the headers of its requests and sends a given response."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.response: bytes | Respond = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nphoto"
        self.port = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if callable(self.response):
                await self.response(writer)
            else:
                writer.write(self.response)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    def redirect(self, location: str, status: int = 302) -> None:
        self.response = (
            f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
        )


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        async with asyncio.timeout(20):
            await asyncio.gather(*server.tasks)


@pytest.fixture
async def web() -> AsyncIterator[Server]:
    """A server at a public address."""
    async with listening() as server:
        yield server


@pytest.fixture
async def private() -> AsyncIterator[Server]:
    """A server at a private address."""
    async with listening() as server:
        yield server


class Internet(httpcore.AnyIOBackend):
    """Maps public addresses to servers on this machine and connects to others as they are."""

    def __init__(self, servers: dict[str, Server]) -> None:
        self.servers = servers
        self.connections: list[tuple[str, int]] = []

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        self.connections.append((host, port))
        if host in self.servers:
            host, port = "127.0.0.1", self.servers[host].port
        return await super().connect_tcp(host, port, timeout, local_address, socket_options)


def resolver(names: dict[str, list[list[str]]]) -> Callable[[str, int], Awaitable[list[str]]]:
    """Resolve a name to its lists of addresses in turn, the last one from then on."""

    async def look_up(host: str, port: int) -> list[str]:
        if host not in names:
            return list(await resolve(host, port))
        lists = names[host]
        return lists.pop(0) if len(lists) > 1 else lists[0]

    return look_up


def make_fetcher(
    internet: Internet,
    names: dict[str, list[list[str]]] | None = None,
    context: ssl.SSLContext | None = None,
    **options,
) -> Fetcher:
    settings = ApiSettings(**options)
    names = {"pictures.example": [[PUBLIC]], **(names or {})}
    backend = PinnedBackend(settings.fetch_hosts, resolver(names), internet)
    return Fetcher(settings, backend=backend, context=context)


async def test_photo_is_downloaded(web):
    internet = Internet({PUBLIC: web})
    assert await make_fetcher(internet).fetch("http://pictures.example/a.jpg?b=c") == b"photo"
    assert internet.connections == [(PUBLIC, 80)]
    [head] = web.requests
    assert head.startswith("GET /a.jpg?b=c HTTP/1.1\r\n")
    assert "host: pictures.example\r\n" in head.lower()


async def test_request_carries_no_credentials_and_uses_no_proxy(web, monkeypatch, tmp_path):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine pictures.example login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    await make_fetcher(Internet({PUBLIC: web})).fetch("http://pictures.example/")
    names = {line.partition(":")[0].lower() for line in web.requests[0].splitlines()[1:] if line}
    assert names == {"host", "accept", "accept-encoding", "user-agent", "connection"}


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Create the context of a server that is pictures.example, and one that trusts it."""
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("pictures.example").configure_cert(served)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return served, trusting


async def test_tls_checks_the_certificate_of_the_name():
    served, trusting = tls_contexts()
    async with listening(served) as server:
        internet = Internet({PUBLIC: server})
        assert (
            await make_fetcher(internet, context=trusting).fetch("https://pictures.example/")
            == b"photo"
        )
        assert internet.connections == [(PUBLIC, 443)]
        other = make_fetcher(internet, {"other.example": [[PUBLIC]]}, context=trusting)
        with pytest.raises(FetchError, match="certificate"):
            await other.fetch("https://other.example/")


async def test_host_that_breaks_tls_after_the_handshake_is_an_error():
    async def send_without_tls(writer: asyncio.StreamWriter) -> None:
        os.write(writer.get_extra_info("socket").fileno(), b"HTTP/1.1 200 OK\r\n\r\nphoto")

    served, trusting = tls_contexts()
    async with listening(served) as server:
        server.response = send_without_tls
        with pytest.raises(FetchError, match="SSL"):
            await make_fetcher(Internet({PUBLIC: server}), context=trusting).fetch(
                "https://pictures.example/"
            )


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://pictures.example/", "file:///etc/passwd", "gopher://pictures.example/", "data:,x"),
        *(
            "pictures.example",
            "//pictures.example/",
            "http://",
            "http:///a",
            "",
            "  ",
            "http://[::1",
        ),
        *("http://me:secret@pictures.example/", "http://me@pictures.example/"),
        "http://pictures.example/\r\nX: y",
        "http://pictures.example/" + "a" * 2048,
        "http://pictures.example:22/",
        "http://pictures.example:99999/",
        *("http://xn--/", "http://xn--a/", "http://xn--0x7f../", "http://\ud800.example/"),
    ],
)
async def test_url_that_is_not_allowed_is_refused(web, url):
    internet = Internet({PUBLIC: web})
    with pytest.raises(FetchError):
        await make_fetcher(internet).fetch(url)
    assert internet.connections == []


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "017700000001", "0"),
        *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]"),
        *("10.0.0.1", "192.168.0.1", "172.16.0.1", "[fd00::1]", "[fe80::1]", "169.254.169.254"),
        *("224.0.0.1", "[ff02::1]", "168.63.129.16", "private.example", "mixed.example"),
    ],
)
async def test_host_with_an_address_that_is_not_public_is_refused(web, host):
    internet = Internet({PUBLIC: web})
    names = {"private.example": [["10.0.0.1"]], "mixed.example": [[PUBLIC, "127.0.0.1"]]}
    with pytest.raises(FetchError) as caught:
        await make_fetcher(internet, names).fetch(f"http://{host}/")
    assert "not on the public internet" in caught.value.words
    assert internet.connections == []


async def test_dns_rebinding_reaches_no_private_server(web, private):
    # The name is public when it is checked and private a moment later: resolving it twice would
    # lead to the private server.
    internet = Internet({PUBLIC: web, "127.0.0.1": private})
    names = {"rebind.example": [[PUBLIC], ["127.0.0.1"]]}
    fetcher = make_fetcher(internet, names)
    assert await fetcher.fetch("http://rebind.example/") == b"photo"
    assert internet.connections == [(PUBLIC, 80)]
    with pytest.raises(FetchError):
        await fetcher.fetch("http://rebind.example/")
    assert internet.connections == [(PUBLIC, 80)]
    assert private.requests == []


async def test_dns_rebinding_between_redirects_reaches_no_private_server(web, private):
    web.redirect("http://rebind.example/again")
    internet = Internet({PUBLIC: web, "127.0.0.1": private})
    with pytest.raises(FetchError):
        await make_fetcher(internet, {"rebind.example": [[PUBLIC], ["127.0.0.1"]]}).fetch(
            "http://rebind.example/"
        )
    assert private.requests == []


async def test_redirects_are_followed(web):
    async with listening() as second:
        web.redirect("http://second.example/photo.jpg", 301)
        internet = Internet({PUBLIC: web, OTHER: second})
        fetcher = make_fetcher(internet, {"second.example": [[OTHER]]})
        assert await fetcher.fetch("http://pictures.example/") == b"photo"
        assert second.requests[0].startswith("GET /photo.jpg ")


async def test_redirect_carries_no_cookie_and_is_limited_in_number(web):
    web.response = (
        b"HTTP/1.1 302 Found\r\nSet-Cookie: a=b\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n"
    )
    with pytest.raises(FetchError, match="redirects"):
        await make_fetcher(Internet({PUBLIC: web})).fetch("http://pictures.example/")
    assert len(web.requests) == 4  # the address itself and three redirects
    assert not any("cookie" in head.lower() for head in web.requests)


@pytest.mark.parametrize(
    "location",
    [
        *("http://127.0.0.1/", "http://private.example/", "//169.254.169.254/latest/meta-data/"),
        *("file:///etc/passwd", "ftp://pictures.example/", "http://pictures.example:6379/"),
        "http://me:secret@pictures.example/",
    ],
)
async def test_redirect_to_a_url_that_is_not_allowed_is_refused(web, location):
    web.redirect(location)
    internet = Internet({PUBLIC: web})
    with pytest.raises(FetchError):
        await make_fetcher(internet, {"private.example": [["10.0.0.1"]]}).fetch(
            "http://pictures.example/"
        )
    assert len(internet.connections) == 1


@given(url=st.text() | st.text("xn-a9.:/[]@%é。\u0661\ud800").map("http://".__add__))
@settings(max_examples=200, deadline=None)
async def test_no_url_raises_another_error(url):
    async def find_nothing(host, port):
        raise OSError(f"{host} does not exist")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    fetcher = Fetcher(ApiSettings(), backend=PinnedBackend((), find_nothing), context=context)
    with pytest.raises(FetchError):
        await fetcher.fetch(url)


async def test_exempt_host_may_be_private(private):
    internet = Internet({})
    url = f"http://localhost:{private.port}/"
    with pytest.raises(FetchError):
        await make_fetcher(internet).fetch(url)
    assert await make_fetcher(internet, fetch_hosts=("LocalHost",)).fetch(url) == b"photo"
    with pytest.raises(FetchError):
        await make_fetcher(internet, fetch_hosts=("other",)).fetch(url)


async def test_exempt_host_cannot_redirect_to_private_addresses(private):
    private.redirect(f"http://127.0.0.1:{private.port}/")
    with pytest.raises(FetchError):
        await make_fetcher(Internet({}), fetch_hosts=("localhost",)).fetch(
            f"http://localhost:{private.port}/"
        )
    assert len(private.requests) == 1


async def test_next_address_is_tried_if_one_refuses(web):
    internet = Internet({PUBLIC: web, OTHER: Server()})  # port 0 refuses
    fetcher = make_fetcher(internet, {"two.example": [[OTHER, PUBLIC]]})
    assert await fetcher.fetch("http://two.example/") == b"photo"


@pytest.mark.skipif(sys.platform != "linux", reason="others refuse where Linux keeps silent")
async def test_next_address_is_tried_if_one_is_silent(web, monkeypatch):
    monkeypatch.setattr(fetch, "_CONNECT_TIMEOUT", 0.1)
    silent = Server()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        silent.port = listener.getsockname()[1]
        with socket.create_connection(listener.getsockname()):  # one waits, and it is full
            fetcher = make_fetcher(
                Internet({PUBLIC: web, OTHER: silent}), {"two.example": [[OTHER, PUBLIC]]}
            )
            assert await fetcher.fetch("http://two.example/") == b"photo"


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nphoto", FetchError),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nphoto",
            FetchError,
        ),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n", FetchError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nphoto", FetchError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", EmptyImageError),
        (b"this is no HTTP\r\n\r\n", FetchError),
        (b"", FetchError),
    ],
)
async def test_bad_response_is_an_error(web, head, error):
    web.response = head
    with pytest.raises(error):
        await make_fetcher(Internet({PUBLIC: web})).fetch("http://pictures.example/")


async def test_body_larger_than_allowed_is_refused(web):
    web.response = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001
    with pytest.raises(ImageTooLargeError):
        await make_fetcher(Internet({PUBLIC: web}), max_bytes=1000).fetch(
            "http://pictures.example/"
        )
    assert (
        len(await make_fetcher(Internet({PUBLIC: web})).fetch("http://pictures.example/")) == 1001
    )


async def test_body_of_tiny_chunks_is_refused(web):
    head, end = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\n"
    web.response = head + b"1\r\na\r\n" * 100 + b"400\r\n%s\r\n" % bytes(1024) * 1000 + end
    fetcher = make_fetcher(Internet({PUBLIC: web}))
    assert len(await fetcher.fetch("http://pictures.example/")) == 100 + 1024 * 1000
    web.response = head + b"1\r\na\r\n" * 1000 + end
    with pytest.raises(FetchError, match="larger chunks"):
        await fetcher.fetch("http://pictures.example/")


async def test_little_is_read_at_a_time(web):
    """A host may send thousands of answers in 64 kB, and nobody else is served meanwhile."""
    sizes = []

    class Recorder(Internet):
        async def connect_tcp(self, *args, **options):
            stream = await super().connect_tcp(*args, **options)
            read = stream.read
            stream.read = lambda size, timeout=None: sizes.append(size) or read(size, timeout)
            return stream

    fetcher = make_fetcher(Recorder({PUBLIC: web}))
    assert await fetcher.fetch("http://pictures.example/") == b"photo"
    assert 0 < max(sizes) <= 2**14


async def test_memory_is_reserved_while_a_body_comes(web):
    def reserve(size):
        raise BusyError(f"{size} bytes are not free")

    web.response = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001
    with pytest.raises(BusyError):
        await make_fetcher(Internet({PUBLIC: web})).fetch("http://pictures.example/", reserve)


async def test_slow_body_times_out(web):
    async def send_slowly(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    web.response = send_slowly
    with pytest.raises(FetchError, match="longer than"):
        await make_fetcher(Internet({PUBLIC: web}), fetch_seconds=0.2).fetch(
            "http://pictures.example/"
        )


async def test_slow_resolver_times_out():
    async def never(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    fetcher = Fetcher(ApiSettings(fetch_seconds=0.05), backend=PinnedBackend((), never))
    with pytest.raises(FetchError, match="longer than"):
        await fetcher.fetch("http://pictures.example/")


async def test_names_that_resolve_slowly_keep_no_other_waiting(monkeypatch):
    """Sixteen downloads at a time, each given up after ten seconds, for half a minute."""
    ended = threading.Event()
    look_up = socket.getaddrinfo

    def slow(host, *arguments, **options):
        if host == "slow.example":
            ended.wait()
        return look_up("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    waiting = [asyncio.create_task(resolve("slow.example", 80)) for _ in range(48)]
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(10):
            assert await resolve("quick.example", 80) == ["127.0.0.1"]
    finally:
        ended.set()
        await asyncio.gather(*waiting)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "151.101.1.69", "2606:4700:4700::1111", "2a00:1450:4001::1"]
)
def test_public_addresses_are_allowed(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.10", "0.0.0.0", "::1", "::"),
        *("10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12::1"),
        *("3fff::1", "3fff:fff::1"),  # for documentation
        *("169.254.1.1", "fe80::1", "fe80::1%eth0", "2606:4700::1%1", "fec0::1"),
        *("224.0.0.1", "239.255.255.250", "ff02::1", "255.255.255.255", "240.0.0.1"),
        # metadata endpoints of clouds
        *("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
        *("100.64.0.1", "198.18.0.1", "192.0.2.1", "203.0.113.1", "192.88.99.1", "2001:db8::1"),
        # IPv4 inside IPv6: mapped, compatible, NAT64, 6to4, Teredo, ISATAP
        *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "2606:4700::5efe:7f00:1"),
        *("", "localhost", "127.1", "0x7f000001", "1.1.1.1/32"),
    ],
)
def test_other_addresses_are_refused(address):
    assert not is_public(address)
