"""The JSON API on uvicorn, with real sockets and clients."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from icon_classifier.api import serve as api_server
from icon_classifier.api.app import create_app
from icon_classifier.api.settings import ApiSettings
from icon_classifier.images import read_image_file
from icon_classifier.model.session import Model
from tests.support.models import model_bytes, write_model
from tests.support.pictures import encode, gradient
from tests.support.servers import ROOT, Server, free_port, running

PHOTO = encode(gradient(), "JPEG")


@contextlib.contextmanager
def serving_process(folder: Path, changes: str) -> Iterator[Server]:
    """Run the API in a process of its own, in which some statements come first."""
    write_model(folder)
    port = free_port()
    program = (
        "import resource, sys, time;"
        "from icon_classifier.api import serve; from icon_classifier.api.app import *;"
        f"{changes}; serve.serve(app_from_environment(Path({str(folder)!r})), port={port})"
    )
    with running(["-c", program], port=port, ready="healthz") as server:
        yield server


@contextlib.contextmanager
def serving(model: Model, **options) -> Iterator[tuple[str, int]]:
    """Run the API in a thread until the block ends and yield its address."""
    app = create_app(model, ApiSettings(**{"rate": 0, **options}))
    server = api_server.create_server(app)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(model_bytes())


def read_to_end(connection: socket.socket, seconds: float = 20) -> bytes:
    """Read until the server closes the connection."""
    connection.settimeout(seconds)
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            data += part
    return data


def drip(connection: socket.socket) -> bytes:
    """Send a byte after the other until the server does something; read until it closes."""
    for _ in range(1000):
        with contextlib.suppress(ConnectionError):  # it may be closed by now
            connection.sendall(b"x")
        if select.select([connection], [], [], 0.01)[0]:
            return read_to_end(connection)
    raise TimeoutError


def test_command_serves_the_api_and_reports_a_used_port(tmp_path: Path) -> None:
    write_model(tmp_path)
    port = free_port()
    command = ["-m", "icon_classifier", "api", f"--port={port}", f"--model={tmp_path}/export.onnx"]
    with running(command, port=port, ready="healthz") as server:
        answer = httpx.post(server.url + "classify", content=PHOTO, timeout=60).json()
        assert {entry["label"] for entry in answer["predictions"]} == {"red", "green", "blue"}
        assert httpx.get(server.url, timeout=60).headers["content-type"].startswith("text/html")
        url = f"http://127.0.0.1:{port}/labels"
        refused = httpx.get(server.url + "classify-url", params={"url": url}, timeout=60)
        assert refused.status_code == 422
        assert f"listens on http://127.0.0.1:{port}" in server.text
        second = subprocess.run(
            [sys.executable, *command], cwd=ROOT, capture_output=True, text=True
        )
        assert second.returncode == 1
        assert f"cannot listen on 127.0.0.1 port {port}" in second.stderr
        assert "Traceback" not in second.stderr


def test_shipped_model_recognises_the_grizzly(project_model: Model, grizzly: Path) -> None:
    expected = project_model.predict(read_image_file(grizzly))
    with serving(project_model) as (host, port):
        url, photo = f"http://{host}:{port}/classify", grizzly.read_bytes()
        answer = httpx.post(url, content=photo, timeout=60).json()
    assert answer["predictions"][0]["label"] == expected.label == "grizzly"
    assert answer["predictions"][0]["probability"] == pytest.approx(expected.probability, abs=1e-4)


def test_concurrent_requests_get_the_answers_of_single_ones(model: Model) -> None:
    photos = [encode(gradient(size=(20 + 7 * number, 40)), "PNG") for number in range(24)]
    with (
        serving(model) as (host, port),
        httpx.Client(base_url=f"http://{host}:{port}", timeout=60) as client,
    ):
        alone = [client.post("/classify", content=photo).json() for photo in photos]
        with ThreadPoolExecutor(12) as threads:
            together = list(
                threads.map(lambda photo: client.post("/classify", content=photo).json(), photos)
            )
    for first, second in zip(alone, together, strict=True):
        assert first["known"] is second["known"]
        for one, other in zip(first["predictions"], second["predictions"], strict=True):
            assert one["label"] == other["label"]
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_pending_photo_is_answered_before_shutdown() -> None:
    class UntilShutdown(Model):
        """Keeps a photo until the server no longer listens."""

        def predict_arrays(self, batch, **options):
            with contextlib.suppress(ConnectionError):
                for _ in range(2000):
                    socket.create_connection(address).close()
                    time.sleep(0.01)
                raise TimeoutError
            return super().predict_arrays(batch, **options)

    with ThreadPoolExecutor(1) as threads, serving(UntilShutdown(model_bytes())) as address:
        connection = httpx.Client(base_url="http://{}:{}".format(*address), timeout=30)
        assert connection.get("/healthz").status_code == 200
        answer = threads.submit(connection.post, "/classify", content=PHOTO)
        while connection.get("/healthz").json()["pending"] == 0:
            assert not answer.done()
        assert not answer.done()
    assert answer.result().status_code == 200
    connection.close()


class TestSlowClients:
    """Slow clients are disconnected and others are not affected."""

    @pytest.mark.parametrize("kind", ["image/jpeg", "multipart/form-data; boundary=x"])
    @pytest.mark.parametrize("limits", [{"idle_seconds": 1}, {"body_seconds": 1}])
    def test_slow_body_is_a_problem(self, model: Model, kind: str, limits: dict) -> None:
        head = f"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n"
        with serving(model, **limits) as (host, port):
            connection = socket.create_connection((host, port))
            connection.sendall(head.encode() + b"Content-Length: 5000\r\n\r\n--x\r\n")
            url = f"http://{host}:{port}/classify"
            assert httpx.post(url, content=PHOTO, timeout=60).status_code == 200
            answer = read_to_end(connection)
            connection.close()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "/docs#slow-upload"

    def test_body_that_comes_byte_by_byte_is_a_problem(self, model: Model) -> None:
        head = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n"
        with (
            serving(model, body_seconds=0.2) as address,
            socket.create_connection(address) as connection,
        ):
            connection.sendall(head)
            assert drip(connection).startswith(b"HTTP/1.1 408 ")

    def test_slow_headers_close_the_connection(self, model: Model, monkeypatch) -> None:
        monkeypatch.setattr(api_server, "_MAX_HEADER_SECONDS", 0.2)
        with serving(model) as address, socket.create_connection(address) as connection:
            connection.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nX-A: ")
            assert read_to_end(connection) == b""

    def test_slow_headers_of_a_second_request_close_the_connection(
        self, model: Model, monkeypatch
    ) -> None:
        monkeypatch.setattr(api_server, "_MAX_HEADER_SECONDS", 0.2)
        with serving(model) as address, socket.create_connection(address) as connection:
            connection.sendall(b"GET /labels HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            connection.sendall(b"GET /labels HTTP/1.1\r\n")
            assert drip(connection) == b""

    def test_endless_headers_close_the_connection(self, model: Model) -> None:
        with serving(model) as address, socket.create_connection(address) as connection:
            connection.sendall(b"GET /labels HTTP/1.1\r\n")
            with contextlib.suppress(ConnectionError):
                for _ in range(200):
                    connection.sendall(b"X-A: " + 1000 * b"a" + b"\r\n")
            assert read_to_end(connection) == b""


def test_body_larger_than_allowed_is_refused_before_it_is_complete(model: Model) -> None:
    with serving(model, max_body=100_000) as address:
        with socket.create_connection(address) as connection:
            connection.sendall(
                b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n"
            )
            assert read_to_end(connection).startswith(b"HTTP/1.1 413 ")
        with socket.create_connection(address) as connection:
            connection.sendall(
                b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 150000\r\n\r\n"
            )
            connection.sendall(150_000 * b"x")
            assert read_to_end(connection).startswith(b"HTTP/1.1 413 ")


def test_body_without_an_end_closes_the_connection(model: Model) -> None:
    chunk = b"8000\r\n" + bytes(2**15) + b"\r\n"
    with (
        serving(model, max_body=100_000) as address,
        socket.create_connection(address) as connection,
    ):
        connection.sendall(b"POST /classify HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(ConnectionError):
            connection.sendall(chunk * 2000)


def test_more_requests_than_allowed_are_refused(model: Model, monkeypatch) -> None:
    monkeypatch.setattr(api_server, "_MAX_CONNECTIONS", 2)
    with serving(model) as address, contextlib.ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(socket.create_connection(address))
            connection.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        host, port = address
        while (answer := httpx.get(f"http://{host}:{port}/labels", timeout=60)).status_code == 200:
            pass  # the two are not read yet
        assert (answer.status_code, answer.json()["type"]) == (503, "/docs#busy")
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("head", [b"", b"GET /labels HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_idle_connections_keep_nobody_out(model: Model, monkeypatch, head: bytes) -> None:
    monkeypatch.setattr(api_server, "_MAX_CONNECTIONS", 3)
    monkeypatch.setattr(api_server, "_MAX_HEADER_SECONDS", 1000)
    with serving(model) as address, contextlib.ExitStack() as stack:
        host, port = address
        idle = []
        for _ in range(5):
            idle.append(stack.enter_context(socket.create_connection(address)))
            idle[-1].sendall(head)
            if head:  # wait for its answer: a connection without one may be closed before it
                assert idle[-1].recv(15) == b"HTTP/1.1 200 OK"
        for _ in range(3):
            assert httpx.get(f"http://{host}:{port}/labels", timeout=60).status_code == 200
        read_to_end(idle[0], 5)  # the oldest is closed


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="others queue fewer connections")
def test_thousand_connections_at_the_same_moment_leave_descriptors(tmp_path: Path) -> None:
    """With the event loop of Python, which accepts many before it looks at one."""
    most = 512 + 3 * 128 + 30  # what _BACKLOG says, and what a server without connections has open
    limit = f"resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))"
    changes = f"{limit}; sys.modules['uvloop'] = None"
    with serving_process(tmp_path, changes) as server, contextlib.ExitStack() as stack:
        server.process.send_signal(signal.SIGSTOP)
        for _ in range(1000):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", server.port))
        server.process.send_signal(signal.SIGCONT)
        for _ in range(10):
            assert httpx.get(server.url + "healthz", timeout=60).status_code == 200
        assert "Too many open files" not in server.text


def test_log_is_not_flooded(model: Model, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(model) as address:
        for _ in range(30):
            with socket.create_connection(address) as connection:
                connection.sendall(b"no HTTP\r\n\r\n")
                assert read_to_end(connection)
    assert capfd.readouterr().err.count("Invalid HTTP request") == 10


def test_invalid_http_does_not_stop_the_server(model: Model) -> None:
    with serving(model) as (host, port):
        with socket.create_connection((host, port)) as connection:
            connection.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")
        assert httpx.get(f"http://{host}:{port}/healthz", timeout=60).status_code == 200


def test_body_of_tiny_chunks_is_refused(model: Model) -> None:
    """Each chunk takes a microsecond, in which nobody else is answered."""

    def send(chunks: list[bytes]) -> bytes:
        body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])
        head = b"POST /classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        with socket.create_connection(address) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + body)
            return read_to_end(connection)

    with serving(model) as address:
        assert send([b"x"] * 200_000) == b""
        pieces = [PHOTO[at : at + 10] for at in range(0, len(PHOTO), 10)]
        assert send(pieces).startswith(b"HTTP/1.1 200 ")
        assert send([*pieces, *[bytes(2048)] * 5000]).startswith(b"HTTP/1.1 200 ")


def test_head_of_many_lines_is_refused(model: Model) -> None:
    """Each is kept, in many times its bytes."""
    with serving(model) as address, socket.create_connection(address) as connection:
        connection.sendall(b"GET /labels HTTP/1.1\r\n" + b"a: b\r\n" * 1000)
        assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("line", [b"a: b\r\n", b"a" * 100, b": " + b"a" * 100])
def test_endless_end_of_a_body_closes_the_connection(model: Model, line: bytes) -> None:
    """A body of chunks may end with further headers."""
    with serving(model) as address, socket.create_connection(address) as connection:
        connection.sendall(b"POST /classify HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na")
        with pytest.raises(ConnectionError):
            connection.sendall(line * 1_000_000)


def test_many_requests_before_an_answer_are_refused(model: Model) -> None:
    """Work on all of them would begin, and nobody else be answered meanwhile."""
    request = b"GET /labels HTTP/1.1\r\nHost: x\r\n\r\n"
    with serving(model) as address:
        with socket.create_connection(address) as connection:
            connection.sendall(request * 2000)
            answers = read_to_end(connection)
        assert answers.count(b"HTTP/1.1 200 ") < 10
        assert b"HTTP/1.1 400 " in answers
        with socket.create_connection(address) as connection:
            connection.sendall(request * 5 + request.replace(b"Host", b"Connection: close\r\nHost"))
            assert read_to_end(connection).count(b"HTTP/1.1 200 ") == 6


def test_uvicorn_command_serves_the_app(tmp_path: Path) -> None:
    write_model(tmp_path)
    port = free_port()
    command = ["-m", "uvicorn", "icon_classifier.api.app:app", f"--port={port}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ICON_CLASSIFIER_API_MODEL", str(tmp_path))
        with running(command, port=port, ready="healthz") as server:
            assert httpx.get(server.url + "labels", timeout=60).json()["labels"] == [
                "red",
                "green",
                "blue",
            ]


def test_signal_ends_the_process_whatever_it_is_doing(tmp_path: Path) -> None:
    changes = (
        "serve.MAX_SHUTDOWN_SECONDS = 3; Model.predict_arrays = lambda *_: time.sleep(60);"
        "LocalClassifier.close = lambda _: time.sleep(60)"
    )
    with serving_process(tmp_path, changes) as server, ThreadPoolExecutor() as pool:
        photo = pool.submit(httpx.post, server.url + "classify", content=PHOTO, timeout=60)
        while httpx.get(server.url + "healthz", timeout=60).json()["pending"] == 0:
            assert not photo.done()
        server.process.terminate()
        assert server.process.wait(50) == 1
        assert photo.exception() or photo.result().status_code == 500


def test_signal_ends_slow_uploads_in_order(tmp_path: Path) -> None:
    with (
        serving_process(tmp_path, "serve.MAX_SHUTDOWN_SECONDS = 4") as server,
        socket.create_connection(("127.0.0.1", server.port)) as connection,
    ):
        connection.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")
        assert httpx.get(server.url + "healthz", timeout=60).status_code == 200  # it is read by now
        server.process.terminate()
        assert server.process.wait(50) == -signal.SIGTERM  # as Uvicorn ends
