"""After a visit a photo is nowhere: not on disk, not in a log, not in another process's memory."""

from __future__ import annotations

import asyncio
import os
import uuid
from pathlib import Path

import psutil
import pytest
from PIL import Image

from icon_classifier.kernels.process import can_fork
from icon_classifier.server.visitor import Visit
from tests.support.models import write_model
from tests.support.pictures import encode
from tests.support.processes import count_in_memory
from tests.support.servers import project_copy, voila

pytestmark = pytest.mark.skipif(not can_fork(), reason="looks into /proc")


def marked(mark: bytes) -> bytes:
    """A photo of some megabytes whose file says something that is said nowhere else."""
    plain = encode(Image.effect_noise((1500, 1500), 90).convert("RGB"), "JPEG", quality=95)
    text = mark.center(2**14)  # some pages from the edge, which the allocator may keep
    comment = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
    return plain[:2] + comment + plain[2:]


def holds(folder: Path, mark: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and mark in path.read_bytes()]


async def until_gone(mark: bytes, process: int, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while count_in_memory(mark, process):
            await asyncio.sleep(0.5)


async def test_no_process_or_file_holds_a_photo_after_the_visit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, last = (uuid.uuid4().hex.encode() for _ in range(2))
    temporary, project = tmp_path / "tmp", tmp_path / "project"
    temporary.mkdir()
    project.mkdir()
    project_copy(project)
    write_model(project)
    monkeypatch.setenv("TMPDIR", str(temporary))
    with voila(project, "--VisitorKernelManager.leave_timeout=1") as server:
        async with await Visit.open(server.url) as other:
            family = psutil.Process(server.process.pid)
            others = {process.pid for process in family.children(recursive=True)}
            async with await Visit.open(server.url) as visit:
                here = {process.pid for process in family.children(recursive=True)} - others
                photo = marked(mark)
                await visit.classify(photo)
                assert sum(count_in_memory(mark, pid) for pid in others) == 0
                assert not holds(temporary, mark)
            async with asyncio.timeout(30):
                while any(psutil.pid_exists(pid) for pid in here):
                    await asyncio.sleep(0.1)
            for pid in others:
                assert count_in_memory(mark, pid) == 0, psutil.Process(pid).cmdline()
            await until_gone(mark, family.pid)
            assert await other.classify(marked(last))
        # The server gives freed memory back now and then, also after the last visitor.
        await until_gone(last, family.pid)
        assert mark.decode() not in server.text
        assert not holds(temporary, mark)
        assert not holds(project, mark)
        assert not holds(server.log.parent, mark)


def test_memory_search_finds_bytes_that_are_there() -> None:
    mark = uuid.uuid4().hex.encode()
    assert count_in_memory(mark, os.getpid()) > 0
