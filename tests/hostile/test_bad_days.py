"""Bad days: the model taken away, a full disk, a crowd. docs/security.md has the table.

Killed kernels, parents and servers are in tests/integration/test_kernels.py.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from jupyter_server.services.kernels import kernelmanager
from PIL import Image

from icon_classifier.errors import DeploymentError, ModelMissingError
from icon_classifier.kernels.manager import VisitorKernelManager
from icon_classifier.server.visitor import Visit
from tests.hostile import LONG
from tests.support.models import write_model
from tests.support.pictures import encode
from tests.support.servers import Server, project_copy, voila

PHOTO = encode(Image.new("RGB", (32, 32), "red"))
RED = "Prediction: red"
CAPACITY = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = project_copy(tmp_path_factory.mktemp("project"))
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with voila(folder) as running:
        yield running
        assert "Traceback" not in running.text


async def until_answered(server: Server, seconds: float = 60) -> None:
    """Wait until a new visitor is answered again."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                async with await Visit.open(server.url) as visit:
                    if (await visit.classify(PHOTO)).startswith(RED):
                        return
            except DeploymentError:
                await asyncio.sleep(0.2)


async def test_page_recovers_when_the_model_is_back(folder: Path, server: Server) -> None:
    """Open pages go on; new ones say what is wrong in plain words, until the file is back."""
    model = folder / "export.onnx"
    async with await Visit.open(server.url) as inside:
        data = model.read_bytes()
        model.unlink()
        assert (await inside.classify(PHOTO)).startswith(RED)
        async with await Visit.open(server.url) as outside:
            assert await outside.classify(PHOTO) == ModelMissingError.words
        model.write_bytes(data[: len(data) // 2])
        async with await Visit.open(server.url) as outside:
            assert not (await outside.classify(PHOTO)).startswith("Prediction")
        model.write_bytes(data)
        await until_answered(server)


@LONG
async def test_page_answers_with_a_full_disk(tmp_path: Path) -> None:
    """No file can be written: open pages go on, and new ones work again when there is space."""
    project_copy(tmp_path)
    write_model(tmp_path)
    with voila(tmp_path) as server:
        async with await Visit.open(server.url) as inside:
            family = [psutil.Process(server.process.pid)]
            family += family[0].children(recursive=True)
            before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
            for process in family:
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, before[1]))
            assert (await inside.classify(PHOTO)).startswith(RED)
            async with httpx.AsyncClient(timeout=60) as client:
                answer = await client.get(server.url)
            assert answer.status_code >= 500 or "kernelId" not in answer.text
            assert "Traceback" not in answer.text
            assert (await inside.classify(PHOTO)).startswith(RED)
            for process in family:
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)
            await until_answered(server)


@LONG
async def test_two_hundred_visitors_at_a_capacity_of_twenty(tmp_path: Path) -> None:
    project_copy(tmp_path)
    write_model(tmp_path)
    capacity = f"--VisitorKernelManager.max_visitors={CAPACITY}"
    with voila(tmp_path, capacity, connect_timeout=10) as server:
        limits, started = httpx.Limits(max_connections=None), time.monotonic()
        async with httpx.AsyncClient(timeout=200, limits=limits) as client:
            answers = await asyncio.gather(*(client.get(server.url) for _ in range(200)))
        codes = [answer.status_code for answer in answers]
        assert codes.count(200) + codes.count(503) == 200
        # Nobody connects: each place is free again after ten seconds.
        rounds = 1 + int(time.monotonic() - started) // 10
        assert CAPACITY <= codes.count(200) <= CAPACITY * rounds
        assert all(answer.headers["Retry-After"] for answer in answers if answer.status_code == 503)
        await until_answered(server)
        assert "Traceback" not in server.text


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts by /proc")
async def test_half_open_websockets_are_closed(server: Server) -> None:
    """Connections that are dropped in the middle of anything leave no descriptor behind."""
    await until_answered(server)
    process = psutil.Process(server.process.pid)
    before = process.num_fds()
    for sent in (b"", b"GET", b"GET / HTTP/1.1\r\nHost:", b"POST / HTTP/1.1\r\n\r\n"):
        for _ in range(20):
            _, writer = await asyncio.open_connection("localhost", server.port)
            writer.write(sent)
            writer.transport.abort()
    async with asyncio.timeout(60):
        while process.num_fds() > before + 2:
            await asyncio.sleep(0.1)


async def test_kernels_survive_a_jump_of_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back, or a little forward: nothing. By more than an idle page may stay: it ends, no other."""
    now = kernelmanager.utcnow
    # A short path, for sockets in files: ports may be lost to another program in between.
    with tempfile.TemporaryDirectory() as folder:
        visitors = VisitorKernelManager(root_dir=str(tmp_path), connection_dir=folder)
        try:
            idle = await visitors.start_kernel()
            visitors.notify_connect(idle)
            client = visitors.get_kernel(idle).client()
            client.start_channels()
            async with asyncio.timeout(60):
                # What it does to start is activity, too; the manager may miss the end of that.
                while visitors.get_kernel(idle).execution_state != "idle":
                    await client.wait_for_ready(timeout=60)
            client.stop_channels()
            for hours in (-24.0, 0.2):
                jumped = timedelta(hours=hours)
                monkeypatch.setattr(kernelmanager, "utcnow", lambda jumped=jumped: now() + jumped)
                await visitors.cull_kernels()
                await visitors._shut_down_disconnected()
                assert idle in visitors
            monkeypatch.setattr(kernelmanager, "utcnow", lambda: now() + timedelta(hours=1))
            fresh = await visitors.start_kernel()
            await visitors.cull_kernels()
            assert idle not in visitors
            assert fresh in visitors
        finally:
            await visitors.shutdown_all()
