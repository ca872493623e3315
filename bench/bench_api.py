"""The JSON API beside a plain Starlette app and Gradio's API: ``make bench-api``.

wrk sends one photo over and over from the same machine at 1, 8 and 32 connections, to each server
in turns; then the ratios within the run. The plain app is the one of the tutorials: it calls
``learn.predict`` where the request comes in.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from bench.gradio_app import VERSION, gradio_app
from icon_classifier.api_settings import PREFIX, cores
from tests.conftest import example
from tests.servers import ROOT, Server, free_port, running

CONNECTIONS = (1, 8, 32)

# wrk's own summary has no 95th percentile; `done` may print what it likes.
SCRIPT = """
wrk.method = "POST"
wrk.path = "{path}"
wrk.headers["Content-Type"] = "{kind}"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
function done(summary, latency, requests)
  local bad = summary.errors.status + summary.errors.timeout + summary.errors.connect
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration, bad,
    latency:percentile(50), latency:percentile(95)))
end
"""


@dataclass(frozen=True)
class Target:
    """What is measured: the server, the path, and the body that classifies one photo."""

    server: Server
    path: str
    body: bytes
    kind: str


@dataclass(frozen=True)
class Result:
    """One run of wrk: photos per second, milliseconds."""

    rate: float
    p50: float
    p95: float


def hit(target: Target, connections: int, seconds: int, folder: Path) -> Result:
    """Run wrk once."""
    body, script = folder / "body", folder / "script.lua"
    body.write_bytes(target.body)
    script.write_text(SCRIPT.format(path=target.path, kind=target.kind, body=body))
    command = ["wrk", f"-t{min(2, connections)}", f"-c{connections}", f"-d{seconds}s"]
    command += ["--timeout", "60s", "--latency", "-s", script, target.server.url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", output)
    if not found:
        raise RuntimeError(f"wrk printed no result:\n{output}")
    count, duration, bad, p50, p95 = map(int, found.groups())
    if not count:
        raise RuntimeError("nothing was answered: the machine is too busy, or give more --seconds")
    if bad:
        raise RuntimeError(f"{bad} of {count} requests failed")
    return Result(count / (duration / 1e6), p50 / 1e3, p95 / 1e3)


@contextlib.contextmanager
def ours(photo: bytes) -> Iterator[Target]:
    port = free_port()
    command = ["-m", "icon_classifier", "api", f"--port={port}", f"--model={ROOT}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PREFIX + "RATE", "0")  # one client asks without a limit here
        with running(command, port=port, ready="healthz") as server:
            yield Target(server, "/classify", photo, "image/jpeg")


@contextlib.contextmanager
def plain(photo: bytes) -> Iterator[Target]:
    port = free_port()
    command = ["-m", "uvicorn", "bench.plain_api:app", f"--port={port}", "--no-access-log"]
    with running(command, port=port, ready="healthz") as server:
        form = httpx.Request("POST", server.url, files={"file": ("photo.jpg", photo)})
        yield Target(server, "/classify", form.read(), form.headers["content-type"])


@contextlib.contextmanager
def gradio(photo: bytes) -> Iterator[Target]:
    """Gradio's API answers in two steps: a photo is uploaded and asked for, then the answer.

    wrk sends one request again and again, so only the step that classifies is measured, of a photo
    uploaded before; what a client really waits is more.
    """
    with gradio_app() as server:
        with httpx.Client(base_url=server.url, timeout=120) as client:
            prefix = client.get("config").json().get("api_prefix", "/gradio_api")
            files = {"files": ("photo.jpg", photo, "image/jpeg")}
            [path] = client.post(f"{prefix}/upload", files=files).raise_for_status().json()
        body = json.dumps({"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]})
        yield Target(server, f"{prefix}/run/predict", body.encode(), "application/json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=8, help="of each run of wrk")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-gradio", action="store_true", help="leave Gradio out")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: run 'apt-get install wrk' (or brew install wrk)")
    photo = example("grizzly.jpg").read_bytes()
    names = {"ours": ours, "plain": plain}
    if not options.no_gradio:
        names[f"Gradio {VERSION}"] = gradio
    print(f"{len(photo) / 1000:.0f} kB photo, {cores()} cores, median of {options.repeats} runs")
    print(f"{'':<16}{'connections':>12}{'photos/s':>10}{'p50 ms':>10}{'p95 ms':>10}")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        targets = {name: stack.enter_context(serve(photo)) for name, serve in names.items()}
        for target in targets.values():
            hit(target, 2, 2, Path(folder))  # warms up
        table: dict[tuple[str, int], Result] = {}
        for connections in CONNECTIONS:
            runs = [
                {n: hit(t, connections, options.seconds, Path(folder)) for n, t in targets.items()}
                for _ in range(options.repeats)
            ]
            for name in targets:
                result = Result(
                    *(
                        statistics.median(getattr(run[name], field) for run in runs)
                        for field in ("rate", "p50", "p95")
                    )
                )
                table[name, connections] = result
                print(
                    f"{name:<16}{connections:>12}{result.rate:>10.1f}{result.p50:>10.1f}"
                    f"{result.p95:>10.1f}",
                    flush=True,
                )
        for connections in CONNECTIONS:
            one, other = table["ours", connections], table["plain", connections]
            print(
                f"{connections} connections: {one.rate / other.rate:.1f} times the plain app's "
                f"photos/s, p95 {one.p95 / other.p95:.2f} of its"
            )
        print("wanted: at least 4 times; p95 at 8 connections at most 0.5")


if __name__ == "__main__":
    main()
