"""Twenty visitors on a host of 512 MB that ends what takes more: is everybody answered?

``python -m bench.bench_limit`` opens the page for twenty visitors, four at a time, lets each ask
once, and then all of them at once, three times. The server runs in a control group with that limit,
files in memory counted; where none can be made (no root, no control groups) it says so. The exit
code is 1 if a visitor gets no page or no answer. No browser: each visitor is a websocket.
``--visitors 100 --megabytes 2048`` measures a crowd; a photo to send may be named.
"""

from __future__ import annotations

import asyncio
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench import report
from bench.measure import p95
from icon_classifier.server.visitor import Visit, example_photo
from scripts import server_process
from scripts.environment import ROOT

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


if __name__ == "__main__":
    parser = report.parser((__doc__ or "").partition("\n")[0])
    parser.add_argument("photo", nargs="?", type=Path, help="fastbook's grizzly if left out")
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=512)
    options = parser.parse_args()
    photo = (options.photo or example_photo()).read_bytes()
    port, limit = server_process.free_port(), options.megabytes
    command = [sys.executable, "-m", "voila", "icon_classifier.ipynb", "--no-browser"]
    command.append(f"--port={port}")
    with server_process.start(command, ROOT, os.environ, port, megabytes=limit) as server:
        limited = "limited" if server.limited else "**not limited**: no control group can be made"
        lines = asyncio.run(run(server, photo, options.visitors))
    sentence = f"{options.visitors} visitors, {limit} MB, {limited}."
    heads = ("", "served", "memory", "median", "95th percentile", "all are served")
    table = report.markdown(heads, lines)
    report.publish(options, [sentence, table])
    sys.exit(report.MISSED in table)
