"""Fetching, against real servers of this machine: a small internet is laid over them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import httpcore
import pytest
import trustme

from icon_classifier.api.fetch import Fetcher, PinnedBackend, resolve
from icon_classifier.api.settings import ApiSettings
from icon_classifier.errors import BusyError, EmptyImageError, FetchError, ImageTooLargeError

PUBLIC = "93.184.215.14"
OTHER = "151.101.1.69"

Serve = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Keeps the heads of the requests that it got; answers what it is told to."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.answer: bytes | Serve = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nphoto"
        self.port = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if callable(self.answer):
                await self.answer(writer)
            else:
                writer.write(self.answer)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    def redirect(self, location: str, status: int = 302) -> None:
        self.answer = (
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
    """A server of the public internet."""
    async with listening() as server:
        yield server


@pytest.fixture
async def inside() -> AsyncIterator[Server]:
    """A server that nobody outside may reach."""
    async with listening() as server:
        yield server


class Internet(httpcore.AnyIOBackend):
    """Connects public addresses to servers of this machine, all others as they are."""

    def __init__(self, servers: dict[str, Server]) -> None:
        self.servers = servers
        self.called: list[tuple[str, int]] = []

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        self.called.append((host, port))
        if host in self.servers:
            host, port = "127.0.0.1", self.servers[host].port
        return await super().connect_tcp(host, port, timeout, local_address, socket_options)


def resolver(names: dict[str, list[list[str]]]) -> Callable[[str, int], Awaitable[list[str]]]:
    """Answer with the lists of addresses in turn, the last one for ever."""

    async def ask(host: str, port: int) -> list[str]:
        if host not in names:
            return list(await resolve(host, port))
        turns = names[host]
        return turns.pop(0) if len(turns) > 1 else turns[0]

    return ask


def make(
    internet: Internet,
    names: dict[str, list[list[str]]] | None = None,
    context: ssl.SSLContext | None = None,
    **options,
) -> Fetcher:
    settings = ApiSettings(**options)
    names = {"pictures.example": [[PUBLIC]], **(names or {})}
    backend = PinnedBackend(settings.fetch_hosts, resolver(names), internet)
    return Fetcher(settings, backend=backend, context=context)


async def test_a_photo_comes(web):
    internet = Internet({PUBLIC: web})
    assert await make(internet).fetch("http://pictures.example/a.jpg?b=c") == b"photo"
    assert internet.called == [(PUBLIC, 80)]
    [head] = web.heads
    assert head.startswith("GET /a.jpg?b=c HTTP/1.1\r\n")
    assert "host: pictures.example\r\n" in head.lower()


async def test_nothing_of_ours_is_told(web, monkeypatch, tmp_path):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine pictures.example login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    await make(Internet({PUBLIC: web})).fetch("http://pictures.example/")
    names = {line.partition(":")[0].lower() for line in web.heads[0].splitlines()[1:] if line}
    assert names == {"host", "accept", "accept-encoding", "user-agent", "connection"}


async def test_tls_keeps_the_name_although_the_address_is_called():
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("pictures.example").configure_cert(served)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with listening(served) as server:
        internet = Internet({PUBLIC: server})
        assert await make(internet, context=trusting).fetch("https://pictures.example/") == b"photo"
        assert internet.called == [(PUBLIC, 443)]
        other = make(internet, {"other.example": [[PUBLIC]]}, context=trusting)
        with pytest.raises(FetchError, match="certificate"):
            await other.fetch("https://other.example/")


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
    ],
)
async def test_what_is_no_address_of_a_picture_is_refused(web, url):
    internet = Internet({PUBLIC: web})
    with pytest.raises(FetchError):
        await make(internet).fetch(url)
    assert internet.called == []


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "017700000001", "0"),
        *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]"),
        *("10.0.0.1", "192.168.0.1", "172.16.0.1", "[fd00::1]", "[fe80::1]", "169.254.169.254"),
        *("224.0.0.1", "[ff02::1]", "168.63.129.16", "inside.example", "mixed.example"),
    ],
)
async def test_addresses_that_are_not_public_are_refused(web, host):
    internet = Internet({PUBLIC: web})
    names = {"inside.example": [["10.0.0.1"]], "mixed.example": [[PUBLIC, "127.0.0.1"]]}
    with pytest.raises(FetchError):
        await make(internet, names).fetch(f"http://{host}/")
    assert internet.called == []


async def test_dns_rebinding_gains_nothing(web, inside):
    # The name is public when it is checked and private a moment later: whoever resolves twice
    # comes to the server inside.
    internet = Internet({PUBLIC: web, "127.0.0.1": inside})
    names = {"rebind.example": [[PUBLIC], ["127.0.0.1"]]}
    fetcher = make(internet, names)
    assert await fetcher.fetch("http://rebind.example/") == b"photo"
    assert internet.called == [(PUBLIC, 80)]
    with pytest.raises(FetchError):
        await fetcher.fetch("http://rebind.example/")
    assert internet.called == [(PUBLIC, 80)]
    assert inside.heads == []


async def test_rebinding_between_redirects_gains_nothing(web, inside):
    web.redirect("http://rebind.example/again")
    internet = Internet({PUBLIC: web, "127.0.0.1": inside})
    with pytest.raises(FetchError):
        await make(internet, {"rebind.example": [[PUBLIC], ["127.0.0.1"]]}).fetch(
            "http://rebind.example/"
        )
    assert inside.heads == []


async def test_redirects_are_followed(web):
    async with listening() as second:
        web.redirect("http://second.example/photo.jpg", 301)
        internet = Internet({PUBLIC: web, OTHER: second})
        fetcher = make(internet, {"second.example": [[OTHER]]})
        assert await fetcher.fetch("http://pictures.example/") == b"photo"
        assert second.heads[0].startswith("GET /photo.jpg ")


async def test_no_cookie_follows_a_redirect(web):
    web.answer = (
        b"HTTP/1.1 302 Found\r\nSet-Cookie: a=b\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n"
    )
    with pytest.raises(FetchError, match="redirects"):
        await make(Internet({PUBLIC: web})).fetch("http://pictures.example/")
    assert len(web.heads) == 4  # the address itself and three redirects
    assert not any("cookie" in head.lower() for head in web.heads)


@pytest.mark.parametrize(
    "location",
    [
        *("http://127.0.0.1/", "http://inside.example/", "//169.254.169.254/latest/meta-data/"),
        *("file:///etc/passwd", "ftp://pictures.example/", "http://pictures.example:6379/"),
        "http://me:secret@pictures.example/",
    ],
)
async def test_a_redirect_is_checked_like_an_address(web, location):
    web.redirect(location)
    internet = Internet({PUBLIC: web})
    with pytest.raises(FetchError):
        await make(internet, {"inside.example": [["10.0.0.1"]]}).fetch("http://pictures.example/")
    assert len(internet.called) == 1


async def test_named_hosts_may_be_private(inside):
    internet = Internet({})
    url = f"http://localhost:{inside.port}/"
    with pytest.raises(FetchError):
        await make(internet).fetch(url)
    assert await make(internet, fetch_hosts=("LocalHost",)).fetch(url) == b"photo"
    with pytest.raises(FetchError):
        await make(internet, fetch_hosts=("other",)).fetch(url)


async def test_a_named_host_cannot_redirect_to_others(inside):
    inside.redirect(f"http://127.0.0.1:{inside.port}/")
    with pytest.raises(FetchError):
        await make(Internet({}), fetch_hosts=("localhost",)).fetch(
            f"http://localhost:{inside.port}/"
        )
    assert len(inside.heads) == 1


async def test_the_next_address_is_tried(web):
    internet = Internet({PUBLIC: web, OTHER: Server()})  # port 0 refuses
    fetcher = make(internet, {"two.example": [[OTHER, PUBLIC]]})
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
async def test_bad_answers(web, head, error):
    web.answer = head
    with pytest.raises(error):
        await make(Internet({PUBLIC: web})).fetch("http://pictures.example/")


async def test_too_much(web):
    web.answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001
    with pytest.raises(ImageTooLargeError):
        await make(Internet({PUBLIC: web}), max_bytes=1000).fetch("http://pictures.example/")
    assert len(await make(Internet({PUBLIC: web})).fetch("http://pictures.example/")) == 1001


async def test_dribbling_takes_too_long(web):
    async def dribble(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    web.answer = dribble
    with pytest.raises(FetchError, match="longer than"):
        await make(Internet({PUBLIC: web}), fetch_seconds=0.2).fetch("http://pictures.example/")


async def test_a_resolver_that_never_answers_takes_too_long():
    async def never(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    fetcher = Fetcher(ApiSettings(fetch_seconds=0.05), backend=PinnedBackend((), never))
    with pytest.raises(FetchError, match="longer than"):
        await fetcher.fetch("http://pictures.example/")


async def test_only_so_many_at_once(web):
    release = asyncio.Event()

    async def hold(writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nphoto")

    web.answer = hold
    fetcher = make(Internet({PUBLIC: web}), fetch_parallel=1)
    first = asyncio.create_task(fetcher.fetch("http://pictures.example/"))
    while not web.heads:
        await asyncio.sleep(0)
    with pytest.raises(BusyError):
        await fetcher.fetch("http://pictures.example/")
    release.set()
    assert await first == b"photo"


async def test_no_socket_of_this_machine_is_opened():
    with pytest.raises(FetchError):
        await PinnedBackend().connect_unix_socket("/run/docker.sock")
