"""A real server on loopback, in this process."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.web import Application, ErrorHandler, RequestHandler

from icon_classifier.server import listener
from icon_classifier.server.listener import Connection, Listener, LongAddress, PageServer


class Hello(RequestHandler):
    """Answers."""

    def get(self) -> None:
        self.write("hello")


@pytest.fixture
def server() -> Iterator[Any]:
    made: list[PageServer] = []

    def serve(proxies: int = 0) -> int:
        routes = [(LongAddress(), ErrorHandler, {"status_code": 414}), ("/.*", Hello)]
        server = PageServer(Application(routes), proxies=proxies)
        plain = socket.create_server(("127.0.0.1", 0))
        server.add_sockets([plain])
        made.append(server)
        return int(next(iter(server._sockets.values())).getsockname()[1])

    yield serve
    for each in made:
        each.stop()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def half_a_request(port: int) -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nX: ")
    return reader, writer


async def ask(port: int, address: str = "/") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {address} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer.split(b"\r\n")[0]


async def test_address_of_more_than_two_kilobytes_is_refused(server: Any) -> None:
    port = server()
    assert await ask(port, "/" + "x" * 2047) == b"HTTP/1.1 200 OK"
    assert await ask(port, "/" + "x" * 2048) == b"HTTP/1.1 414 Request-URI Too Long"
    assert await ask(port, "/?" + '"' * 60_000) == b"HTTP/1.1 414 Request-URI Too Long"


@pytest.mark.parametrize(("proxies", "limit"), [(0, 50), (1, 500)])
async def test_oldest_idle_connections_make_room(server: Any, proxies: int, limit: int) -> None:
    """Behind a proxy all have the proxy's address: there only their number is limited."""
    port = server(proxies)
    held = [await half_a_request(port) for _ in range(limit + 5)]
    assert await ask(port) == b"HTTP/1.1 200 OK"
    ended = [asyncio.wait_for(reader.read(), 20) for reader, _ in held[:6]]
    assert await asyncio.gather(*ended) == [b""] * 6
    assert not any(reader.at_eof() for reader, _ in held[6:])
    for _, writer in held:
        writer.close()


async def test_connection_that_was_answered_is_idle_again(server: Any) -> None:
    port = server()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"hello"), 20)).startswith(b"HTTP/1.1 200")
    held = [await half_a_request(port) for _ in range(50)]
    assert await asyncio.wait_for(reader.read(), 20) == b""
    for each in (writer, *(stream for _, stream in held)):
        each.close()


async def test_server_without_descriptors_recovers(
    server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept, calls = socket.socket.accept, 0

    def fail(self: socket.socket) -> Any:
        nonlocal calls
        calls += 1
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(listener, "EMFILE_SECONDS", 0.2)
    monkeypatch.setattr(socket.socket, "accept", fail)
    port = server()
    asked = asyncio.create_task(ask(port))
    async with asyncio.timeout(20):
        while calls < 3:
            await asyncio.sleep(0.05)
    assert len(caplog.records) == calls, "it must not try again and again"
    assert "Traceback" not in caplog.text
    monkeypatch.setattr(socket.socket, "accept", accept)
    assert await asked == b"HTTP/1.1 200 OK"


def test_bytes_are_received_in_turns() -> None:
    plain = socket.create_server(("127.0.0.1", 0))
    with Listener(plain) as listening, socket.create_connection(listening.getsockname()) as client:
        listening.setblocking(True)
        accepted, _ = listening.accept()
        assert isinstance(accepted, Connection)
        received: list[int] = []
        accepted.upgrade(received.append)
        assert not listening.connections
        with accepted:
            while sum(received) < listener.MAX_BURST:
                client.sendall(bytes(2**16))
                accepted.recv_into(bytearray(2**16))
            with pytest.raises(BlockingIOError):
                accepted.recv_into(bytearray(1))
            client.sendall(b"x")
            assert accepted.recv_into(bytearray(1)) == 1
