"""Voilà with forked kernels: capacity, pages that leave, kernels that end, nothing left over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from icon_classifier.errors import DeploymentError
from icon_classifier.kernels.process import can_fork
from icon_classifier.page.texts import NOT_STARTED
from icon_classifier.server.visitor import Message, Visit
from icon_classifier.system.memory import usable_cores
from tests.support.servers import PAGE, Server, free_port, voila, write_page

pytestmark = pytest.mark.skipif(not can_fork(), reason="kernels are forked on Linux only")

CELL = """
import asyncio
import gc
import time
import ipywidgets as widgets
import zmq
from icon_classifier.system import slots
btn_upload = widgets.FileUpload()
btn_run = widgets.Button(description="Count")
lbl_pred = widgets.Label()
seen = globals().get("seen", [])

def count(_):
    btn_run.disabled = True
    with slots.slot():
        while btn_upload.value and btn_upload.value[-1].content == b"hold":
            lbl_pred.value = "holding"
            time.sleep(1000)
    if btn_upload.value:
        seen.append(bytes(btn_upload.value[-1].content[:20]))
        btn_upload.value = ()
    lbl_pred.value = f"{len(seen)} seen: {b' '.join(seen).decode()}"
    frames = [o for o in gc.get_objects() if isinstance(o, zmq.Frame) and len(o) > 10**6]
    if frames:
        lbl_pred.value += f"; {len(frames)} files still there"
    btn_run.disabled = False

def wait(_):
    # Keeps a copy of this very context, and with it whatever ipykernel has put there.
    asyncio.get_running_loop().call_later(3600, int)

btn_upload.observe(wait, "value")
btn_run.on_click(count)
widgets.VBox([btn_upload, btn_run, lbl_pred])
"""
PLAIN = """
import os
import sys
import ipywidgets as widgets
upload = widgets.FileUpload()
button = widgets.Button(description="Count")
label = widgets.Label()

def count(_):
    button.disabled = True
    size = len(upload.value[-1].content) if upload.value else 0
    ours = sorted(name for name in sys.modules if name.startswith("icon_classifier."))
    label.value = f"{size} {os.getppid()} {' '.join(ours)}"
    button.disabled = False

button.on_click(count)
widgets.VBox([upload, button, label])
"""
CAPACITY = 3
SLOT_SECONDS = 2


@contextlib.contextmanager
def serving(folder: Path, **options: float) -> Iterator[Server]:
    """Serve the page with options of its kernel manager."""
    write_page(folder, CELL, **options)
    with voila(folder, notebook=PAGE) as server:
        yield server


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, metrics_port: int) -> Iterator[Server]:
    """A page that shows which uploads its kernel has ever seen."""
    options = {
        "max_visitors": CAPACITY,
        "leave_timeout": 1,
        "slot_timeout": SLOT_SECONDS,
        "metrics_port": metrics_port,
    }
    with serving(tmp_path_factory.mktemp("project"), **options) as server:
        yield server
        assert "Traceback" not in server.text, server.text
    assert server.process.returncode == 0


def kernels(server: Server) -> list[psutil.Process]:
    """List the kernels' processes: the children of their parent."""
    found = psutil.Process(server.process.pid).children(recursive=True)
    return [process for process in found if process.ppid() != server.process.pid]


async def until_empty(server: Server, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while await asyncio.to_thread(visitors, server) or kernels(server):
            await asyncio.sleep(0.1)


def visitors(server: Server) -> float:
    port = next(
        int(line.split(":")[-1].split("/")[0])
        for line in server.text.splitlines()
        if "Metrics at" in line
    )
    return metrics(port)["icon_classifier_visitors"]


def metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
        for line in lines
        if not line.startswith("#")
    }


def test_healthz_starts_no_kernel(server: Server) -> None:
    with urllib.request.urlopen(server.url + "healthz", timeout=60) as answer:
        assert answer.status == 200
        assert answer.read() == b"ok\n"
    assert not kernels(server)


def test_public_port_serves_no_metrics(server: Server, metrics_port: int) -> None:
    assert metrics(metrics_port)["icon_classifier_visitors"] == 0
    with urllib.request.urlopen(server.url + "healthz", timeout=60) as answer:
        assert b"icon_classifier" not in answer.read()
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(server.url + "metrics", timeout=60)
    error.value.close()
    assert error.value.code in (403, 404)


async def test_no_kernel_sees_another_visitors_upload(server: Server) -> None:
    first, second = await asyncio.gather(Visit.open(server.url), Visit.open(server.url))
    async with first, second:
        assert first.kernel_id != second.kernel_id
        assert await first.classify(b"first") == "1 seen: first"
        assert await second.classify(b"second") == "1 seen: second"
        assert await first.classify(b"again") == "2 seen: first again"
    await until_empty(server)
    async with await Visit.open(server.url) as third:
        assert await third.classify(b"third") == "1 seen: third"
    await until_empty(server)


async def test_kernel_keeps_no_message_with_a_file(server: Server) -> None:
    async with await Visit.open(server.url) as visit:
        assert await visit.classify(b"x" * 2 * 10**6) == f"1 seen: {'x' * 20}"
    await until_empty(server)


async def test_visitor_beyond_the_capacity_is_refused(server: Server, metrics_port: int) -> None:
    refused = metrics(metrics_port)["icon_classifier_visitors_refused_total"]
    visits = await asyncio.gather(*(Visit.open(server.url) for _ in range(CAPACITY)))
    try:
        with pytest.raises(urllib.error.HTTPError) as error:
            await asyncio.to_thread(urllib.request.urlopen, server.url, timeout=60)
        assert error.value.code == 503
        assert int(error.value.headers["Retry-After"]) > 0
        with error.value:
            assert 'http-equiv="refresh"' in error.value.read().decode()
        figures = metrics(metrics_port)
        assert figures["icon_classifier_visitors"] == CAPACITY
        assert figures["icon_classifier_visitors_refused_total"] == refused + 1
        for number, visit in enumerate(visits):
            assert await visit.classify(b"%d" % number) == f"1 seen: {number}"
    finally:
        for visit in visits:
            await visit.close()
    await until_empty(server)
    async with await Visit.open(server.url):  # there is capacity again
        pass
    await until_empty(server)


async def test_ten_visitors_at_the_same_moment_never_exceed_the_capacity(server: Server) -> None:
    answers: list[str] = []

    async def try_to_open() -> Visit | None:
        try:
            return await Visit.open(server.url)
        except DeploymentError as error:
            answers.append(str(error))
            return None

    visits = [visit for visit in await asyncio.gather(*(try_to_open() for _ in range(10))) if visit]
    assert len(visits) == CAPACITY
    assert len(answers) == 10 - CAPACITY
    assert all("503" in answer for answer in answers)
    for visit in visits:
        await visit.close()
    await until_empty(server)


async def until(visit: Visit, wanted: Callable[[Message], bool]) -> Message:
    """Receive messages until one is as wanted."""
    async with asyncio.timeout(30):
        while not wanted(message := await visit.receive()):
            pass
    return message


def is_death(message: Message) -> bool:
    return message.content.get("execution_state") == "dead"


async def hold_slot(visit: Visit) -> None:
    """Let the kernel of a page hold a slot for ever."""
    await visit.choose(b"hold")
    await visit.click()
    await until(visit, lambda message: "holding" in str(message.content))


async def test_page_is_told_that_its_kernel_died(server: Server) -> None:
    async with await Visit.open(server.url) as visit:
        (kernel,) = kernels(server)
        kernel.kill()
        await until(visit, is_death)
    await until_empty(server)
    assert "Restarting" not in server.text


@pytest.mark.parametrize("stopped", [False, True])
async def test_kernels_that_hold_all_slots_are_ended_and_others_answered(
    server: Server, stopped: bool
) -> None:
    """With the reason for the page to show; also where the kernel's own threads do not run."""
    slow = [await Visit.open(server.url) for _ in range(min(CAPACITY - 1, usable_cores()))]
    for visit in slow:
        await hold_slot(visit)
    if stopped:
        for kernel in kernels(server):
            kernel.suspend()
    async with await Visit.open(server.url) as other:
        assert await other.classify(b"other") == "1 seen: other"
        for visit in slow:
            assert (await until(visit, is_death)).content["reason"] == "slow"
            await visit.close()
    await until_empty(server)


async def test_photos_one_after_the_other_are_not_one_that_takes_long(server: Server) -> None:
    async with await Visit.open(server.url) as visit:
        end = time.monotonic() + 2 * SLOT_SECONDS
        while time.monotonic() < end:
            assert "seen" in await visit.classify(b"x")
    await until_empty(server)


async def test_page_says_that_no_kernel_can_be_started_and_tries_again(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        async with await Visit.open(server.url) as visit, httpx.AsyncClient(timeout=60) as client:
            (parent,) = psutil.Process(server.process.pid).children()
            parent.suspend()
            answer = await client.get(server.url)
            parent.resume()
            assert answer.status_code == 503
            assert NOT_STARTED in answer.text
            assert 'http-equiv="refresh"' in answer.text
            assert await visit.classify(b"here") == "1 seen: here"
            async with await Visit.open(server.url) as another:
                assert await another.classify(b"too") == "1 seen: too"


async def test_death_of_the_parent_disturbs_no_visitor(server: Server) -> None:
    async with await Visit.open(server.url) as visit:
        (kernel,) = kernels(server)
        os.kill(kernel.ppid(), signal.SIGKILL)
        assert await visit.classify(b"here") == "1 seen: here"
        async with await Visit.open(server.url) as another:
            assert await another.classify(b"too") == "1 seen: too"
    async with asyncio.timeout(30):
        while kernel.is_running() and kernel.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.1)
    await until_empty(server)


@pytest.mark.parametrize("visits", [10, pytest.param(50, marks=pytest.mark.hostile)])
async def test_visits_leave_nothing(server: Server, visits: int) -> None:
    async with await Visit.open(server.url):
        pass  # what is loaded at the first visit is no leak
    await until_empty(server)
    process = psutil.Process(server.process.pid)
    before = process.num_fds()
    folder = next(
        Path(line.split()[-1].rstrip("."))
        for line in server.text.splitlines()
        if "Storing connection files" in line
    )
    left = set(folder.iterdir())

    async def come_and_go(count: int) -> None:
        for number in range(count):
            async with await Visit.open(server.url) as visit:
                if number % 5 == 0:
                    await visit.classify(b"x")
            async with asyncio.timeout(30):
                while await asyncio.to_thread(visitors, server) >= CAPACITY:
                    await asyncio.sleep(0.05)

    await come_and_go(visits)
    await until_empty(server)
    # ZeroMQ and Jupyter close some later: what each visit leaves would be one more at least.
    assert process.num_fds() < before + visits
    assert set(folder.iterdir()) == left
    assert [child.status() for child in process.children(recursive=True)].count(
        psutil.STATUS_ZOMBIE
    ) == 0


async def test_kernels_of_another_notebook_are_forked_and_import_nothing_of_photos(
    tmp_path: Path,
) -> None:
    """Three plain widgets, no model, and the template that comes with Voilà."""
    write_page(tmp_path, PLAIN, "icon_classifier.kernels.manager.VisitorKernelManager")
    with voila(tmp_path, notebook=PAGE) as server:
        async with await Visit.open(server.url) as visit:
            size, parent, *modules = (await visit.classify(b"12345")).split()
        children = psutil.Process(server.process.pid).children()
        assert "Traceback" not in server.text, server.text
    assert int(size) == 5
    assert int(parent) in {child.pid for child in children}, "the kernel was not forked"
    packages = {module.split(".")[1] for module in modules}
    assert packages == {"kernels", "system"}


async def test_kernels_end_with_a_server_that_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        visit = await Visit.open(server.url)
        processes = psutil.Process(server.process.pid).children(recursive=True)
        assert len(processes) == 2
        server.process.kill()
        _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=60)
        assert not alive
        await visit.close()


async def test_server_ends_within_ten_seconds_whatever_runs(tmp_path: Path) -> None:
    """A kernel that computes, a stopped one, one that is starting, and a stopped parent."""
    with serving(tmp_path) as server:
        visits = [await Visit.open(server.url) for _ in range(2)]
        await hold_slot(visits[0])
        family = psutil.Process(server.process.pid).children(recursive=True)
        for process in (family[0], family[2]):  # the parent, and the kernel that holds no slot
            process.suspend()
        process = psutil.Process(server.process.pid)
        before = len(process.net_connections())
        starting = asyncio.create_task(Visit.open(server.url))
        async with asyncio.timeout(30):
            while len(process.net_connections()) <= before:
                await asyncio.sleep(0.05)
        server.process.terminate()
        assert await asyncio.to_thread(server.process.wait, 10) == 0
        _, alive = await asyncio.to_thread(psutil.wait_procs, family, timeout=60)
        assert not alive
        assert "Traceback" not in server.text
        for visit in visits:
            await visit.close()
        with pytest.raises(DeploymentError):
            await starting


@pytest.mark.hostile
async def test_health_fails_while_no_slot_is_released_for_a_minute(tmp_path: Path) -> None:
    async def until_health(server: Server, status: int) -> None:
        async with asyncio.timeout(100), httpx.AsyncClient() as client:
            while (await client.get(server.url + "healthz")).status_code != status:
                await asyncio.sleep(0.5)

    with serving(tmp_path, slot_timeout=1000) as server:
        visits = [await Visit.open(server.url) for _ in range(usable_cores())]
        for visit in visits:
            await hold_slot(visit)
        started = time.monotonic()
        await until_health(server, 200)
        await until_health(server, 503)
        assert time.monotonic() - started > 50
        for kernel in kernels(server):
            kernel.kill()
        await until_health(server, 200)
        for visit in visits:
            await visit.close()
