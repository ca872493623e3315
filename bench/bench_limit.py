"""Many visitors on a host that ends what takes more memory than it has: is everybody answered?

``python -m bench.bench_limit`` opens the page for twenty visitors in 512 MB, four at a time, lets
each ask once, and then all of them at once, three times; again with photos as a phone takes them;
and for a hundred in 2 GB. With a photo or ``--visitors`` only that is measured. The server runs in
a control group with that limit, files in memory counted; where none can be made (no root, no
control groups) it says so. The exit code is 1 if a visitor gets no page or no answer. No browser:
each visitor is a websocket.
"""

from __future__ import annotations

import asyncio
import io
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from PIL import Image

from bench.support import report
from bench.support.measure import p95
from icon_classifier.cli.smoke import example_photo
from icon_classifier.server.visitor import Visit
from scripts import server_process
from scripts.environment import ROOT

HEADS = ("", "served", "memory", "median", "95th percentile", "all are served")
ROUNDS = 3
AT_ONCE = 4
PATIENCE = 60.0
"""Seconds until a visitor counts as one who got no answer."""


async def ask(visit: Visit, photo: bytes) -> float | None:
    """Upload a photo, click, and return the seconds to the answer; None if there is none."""
    began = time.perf_counter()
    try:
        answer = await asyncio.wait_for(visit.classify(photo), PATIENCE)
    except Exception as error:  # noqa: BLE001 - whatever it is, this visitor got no answer
        print(f"  no answer: {error!r:.100}")
        return None
    return time.perf_counter() - began if "Prediction: " in answer else None


async def run(server: server_process.ServerProcess, photo: bytes, visitors: int) -> list[list[str]]:
    """Let the visitors come and ask; return a line of the table for each time."""
    gate = asyncio.Semaphore(AT_ONCE)
    lines = []

    def tell(what: str, seconds: Sequence[float | None]) -> None:
        served = [each for each in seconds if each is not None]
        memory = server_process.tree_memory(server.pid)
        times = statistics.median(served or [math.nan]), p95(served or [math.nan])
        lines.append([what, f"{len(served)} of {visitors}", f"{memory:.0f} MB"])
        lines[-1] += [f"{each:.2f} s" for each in times]
        lines[-1].append(report.verdict(len(served) == visitors))

    async with AsyncExitStack() as stack:
        visits: list[Visit] = []

        async def come() -> tuple[float | None, float | None]:
            async with gate:
                began = time.perf_counter()
                try:
                    visit = await stack.enter_async_context(await Visit.open(server.url))
                except Exception as error:  # noqa: BLE001 - whatever it is, there is no page
                    print(f"  no page: {error!r:.100}")
                    return None, None
                seconds = time.perf_counter() - began
                visits.append(visit)
                return seconds, await ask(visit, photo)

        came = await asyncio.gather(*(come() for _ in range(visitors)))
        tell("page, four at a time", [seconds for seconds, _ in came])
        tell("answer, four at a time", [seconds for _, seconds in came])
        for number in range(ROUNDS):
            answers = await asyncio.gather(*(ask(visit, photo) for visit in visits))
            tell(f"answer, all at once, round {number + 1}", answers)
    return lines


def measure(photo: bytes, visitors: int, megabytes: int) -> Iterator[str]:
    """Start a server and let visitors come; yield a sentence and a table."""
    report.progress(f"{visitors} visitors, {megabytes} MB of memory")
    port = server_process.free_port()
    command = [sys.executable, "-m", "voila", "icon_classifier.ipynb", "--no-browser"]
    command.append(f"--port={port}")
    with server_process.start(command, ROOT, os.environ, port, megabytes=megabytes) as server:
        limited = "limited" if server.limited else "**not limited**: no control group can be made"
        size = f"{len(photo) / 1e6:.1f} MB"
        yield f"{visitors} visitors, photos of {size}, {megabytes} MB of memory, {limited}:"
        lines = asyncio.run(run(server, photo, visitors))
    yield report.markdown(HEADS, lines)


def measure_most() -> Iterator[str]:
    """Measure the largest photos, 12 megapixels and some 4 MB, and the most visitors."""
    buffer = io.BytesIO()
    Image.open(example_photo()).resize((3024, 4032)).save(buffer, "JPEG", quality=99)
    yield from measure(buffer.getvalue(), 20, 512)
    yield from measure(example_photo().read_bytes(), 100, 2048)


if __name__ == "__main__":
    parser = report.parser((__doc__ or "").partition("\n")[0])
    parser.add_argument("photo", nargs="?", type=Path, help="fastbook's grizzly if left out")
    parser.add_argument("--visitors", type=int)
    parser.add_argument("--megabytes", type=int, default=512)
    options = parser.parse_args()
    photo = (options.photo or example_photo()).read_bytes()
    parts = [*measure(photo, options.visitors or 20, options.megabytes)]
    if not (options.photo or options.visitors):
        parts += measure_most()
    report.publish(options, parts)
    sys.exit(any(report.MISSED in part for part in parts))
