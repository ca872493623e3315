"""A real server on loopback, in this process."""

import asyncio
import codecs
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tornado.web import Application, ErrorHandler, RequestHandler

from icon_classifier.server import listener
from icon_classifier.server.listener import (
    GRACE_SECONDS,
    MAX_BURST,
    MAX_IDLE,
    Connection,
    Listener,
    LongAddress,
    PageServer,
)
from tests.support.servers import ROOT


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
    assert (await ask(port, "/" + "x" * 2048)).startswith(b"HTTP/1.1 414 ")
    assert (await ask(port, "/?" + '"' * 60_000)).startswith(b"HTTP/1.1 414 ")


async def test_codec_that_a_form_names_is_not_looked_up(server: Any) -> None:
    """Python would keep a name that it does not know."""
    form = (
        b"--x\r\nContent-Disposition: form-data; name=a; filename*=no-codec''b\r\n\r\n\r\n--x--\r\n"
    )
    looked_up: list[str] = []
    search = looked_up.append
    codecs.register(search)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server())
        writer.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(form), form)
        )
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
    finally:
        codecs.unregister(search)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not looked_up


@pytest.mark.parametrize(("proxies", "limit"), [(0, 50), (1, 500)])
async def test_oldest_idle_connections_make_room(
    server: Any, monkeypatch: pytest.MonkeyPatch, proxies: int, limit: int
) -> None:
    """Behind a proxy all have the proxy's address: there only their number is limited."""
    monkeypatch.setattr(listener, "GRACE_SECONDS", 0.0)
    port = server(proxies)
    held = [await half_a_request(port) for _ in range(limit + 5)]
    assert await ask(port) == b"HTTP/1.1 200 OK"
    ended = [asyncio.wait_for(reader.read(), 20) for reader, _ in held[:6]]
    assert await asyncio.gather(*ended) == [b""] * 6
    assert not any(reader.at_eof() for reader, _ in held[6:])
    for _, writer in held:
        writer.close()


async def test_new_connections_are_left_alone(server: Any) -> None:
    port = server()
    held = [await half_a_request(port) for _ in range(MAX_IDLE + 5)]
    assert await ask(port) == b"HTTP/1.1 200 OK"
    assert not any(reader.at_eof() for reader, _ in held)
    for _, writer in held:
        writer.close()


async def test_connection_whose_request_was_not_read_yet_is_left_alone() -> None:
    """A busy server accepts many before it reads what they have sent."""
    accepting, clients = Listener(socket.create_server(("127.0.0.1", 0))), []
    with accepting:
        for _ in range(MAX_IDLE + 2):
            clients.append(socket.create_connection(accepting.getsockname()))
            clients[-1].sendall(b"GET / HTTP/1.1\r\n\r\n")
            connection, _ = accepting.accept()
            connection.setblocking(False)
            connection.accepted -= GRACE_SECONDS
        first, second, *_ = accepting.connections
        second.recv(100)
        clients.append(socket.create_connection(accepting.getsockname()))
        accepting.accept()
        assert first in accepting.connections
        assert second not in accepting.connections
        for each in (*clients, *accepting.connections.copy(), second):
            each.close()


async def test_connection_that_was_answered_is_idle_again(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "GRACE_SECONDS", 0.0)
    port = server()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"hello"), 20)).startswith(b"HTTP/1.1 200")
    held = [await half_a_request(port) for _ in range(50)]
    assert await asyncio.wait_for(reader.read(), 20) == b""
    for each in (writer, *(stream for _, stream in held)):
        each.close()


SERVE = """
import resource, sys
from tornado.ioloop import IOLoop
from tornado.web import Application
from icon_classifier.server.listener import PageServer
from tests.unit.server.test_listener import Hello
server = PageServer(Application([("/.*", Hello)]))
server.listen(0, "127.0.0.1")
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
print(next(iter(server._sockets.values())).getsockname()[1], flush=True)
IOLoop.current().start()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
async def test_server_without_descriptors_waits_and_recovers(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE], stdout=subprocess.PIPE, stderr=errors, cwd=ROOT
        )
    with process, process.stdout as printed:
        try:
            port = int(await asyncio.to_thread(printed.readline))
            held = [await half_a_request(port) for _ in range(45)]
            asked = asyncio.create_task(ask(port))
            async with asyncio.timeout(30):
                while log.read_text().count("No descriptor is left") < 3:
                    await asyncio.sleep(0.05)
            assert not asked.done()
            for _, writer in held:
                writer.close()
            assert await asked == b"HTTP/1.1 200 OK"
            lines = log.read_text().splitlines()
            assert all(
                line.endswith("No descriptor is left for a new connection.") for line in lines
            )
            assert len(lines) < 30, "it must not try again and again"
            assert sum(psutil.Process(process.pid).cpu_times()[:2]) < 5
        finally:
            process.kill()


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
            while sum(received) < MAX_BURST:
                client.sendall(bytes(2**16))
                accepted.recv_into(bytearray(2**16))
            with pytest.raises(BlockingIOError):
                accepted.recv_into(bytearray(1))
            client.sendall(b"x")
            assert accepted.recv_into(bytearray(1)) == 1
