"""Visitors who come, drop photos and leave, for hours: ``make soak MINUTES=120``.

Without a browser: over HTTP and the kernel's websocket, as the page's script does. One in five
drops what is no picture, one in five leaves in the middle. Before and after, without visitors:
memory (the proportional set size of the server and all it started), descriptors, processes,
temporary files. Exit code 1 if one of them has grown by more than a tenth, or the log has a
traceback.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import psutil

from icon_classifier.errors import DeploymentError
from icon_classifier.server.visitor import Visit
from tests.support.hostile_pictures import some_files
from tests.support.models import write_model
from tests.support.pictures import encode, gradient
from tests.support.servers import ROOT, Server, project_copy, voila

AT_ONCE = 4
GROWTH = 1.1
WARM_UP_SECONDS = 150.0
"""Until the server's memory stays where it is: it is as large as the visits of a minute make it."""
SETTLE_SECONDS = 75.0
"""Jupyter Server keeps what belongs to a page's websocket for a minute more, in a timer for kernels
that do not answer; only then is it freed."""


@dataclass(frozen=True)
class Figures:
    """What a server with no visitors holds."""

    megabytes: float
    descriptors: int
    processes: int
    files: int


def measure(server: Server, temporary: Path) -> Figures:
    """Measure the server, the parent of its kernels, and what they keep on disk."""
    process = psutil.Process(server.process.pid)
    family = [process, *process.children(recursive=True)]
    return Figures(
        sum(member.memory_full_info().pss for member in family) / 1e6,
        sum(member.num_fds() for member in family),
        len(family),
        sum(1 for _ in temporary.rglob("*")),
    )


async def come_and_go(server: Server, junk: list[bytes], chance: random.Random) -> None:
    """One visitor."""
    good = encode(gradient(), "JPEG")
    async with await Visit.open(server.url) as visit:
        for _ in range(chance.randint(1, 4)):
            photo = chance.choice(junk) if chance.random() < 0.2 else good
            if not await visit.classify(photo):
                raise DeploymentError("the page gave no answer")
        if chance.random() < 0.2:
            await visit.choose(good)
            await visit.click()  # and away, without waiting for what comes


async def until_empty(server: Server) -> None:
    """Wait until every kernel is gone: what is left are the server and the parent."""
    process = psutil.Process(server.process.pid)
    async with asyncio.timeout(120):
        while len(process.children(recursive=True)) > 1:
            await asyncio.sleep(0.5)
    await asyncio.sleep(SETTLE_SECONDS)


async def soak(
    server: Server, temporary: Path, minutes: float
) -> tuple[int, int, Figures, Figures]:
    """Let visitors come for so long; how many came, how many went wrong, and before and after."""
    junk = [data for _, data in some_files()]
    chance = random.Random(0)
    came = wrong = 0

    async def visitor() -> None:
        nonlocal came, wrong
        came += 1
        try:
            await come_and_go(server, junk, chance)
        except (DeploymentError, OSError, TimeoutError) as error:
            wrong += 1
            print(f"visitor {came}: {error!r}", file=sys.stderr)

    async def visits(seconds: float) -> Figures:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.gather(*(visitor() for _ in range(AT_ONCE)))
        await until_empty(server)
        return measure(server, temporary)

    before = await visits(WARM_UP_SECONDS)
    after = await visits(60 * minutes)
    return came, wrong, before, after


def main() -> int:
    """Run it; 1 if anything has grown, failed or been logged as an error."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    with tempfile.TemporaryDirectory(prefix="soak-") as home:
        temporary, project = Path(home) / "tmp", Path(home) / "project"
        temporary.mkdir()
        project.mkdir()
        project_copy(project, ROOT / "export.onnx" if (ROOT / "export.onnx").is_file() else None)
        if not (project / "export.onnx").is_file():
            write_model(project)
        os.environ["TMPDIR"] = str(temporary)
        with voila(project, "--VisitorKernelManager.leave_timeout=2") as server:
            came, wrong, before, after = asyncio.run(soak(server, temporary, minutes))
            said = server.text.splitlines()
            bad = [i for i, line in enumerate(said) if "ERROR" in line or "Traceback" in line]
            errors = len(bad)
            for at in bad:
                print(*said[at : at + 20], "", sep="\n", file=sys.stderr)
    print(f"{came} visitors in {minutes:g} minutes, {wrong} without an answer, {errors} errors")
    print(f"{'':12} {'before':>10} {'after':>10}")
    grown = False
    for field, one, other in zip(fields(Figures), astuple(before), astuple(after), strict=True):
        print(f"{field.name:12} {one:10.1f} {other:10.1f}")
        grown = grown or other > GROWTH * one
    return int(grown or wrong > 0 or errors > 0)


if __name__ == "__main__":
    sys.exit(main())
