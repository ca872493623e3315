"""Compare the JSON API with a plain Starlette app and Gradio's API: ``make bench-api``.

wrk sends one photo repeatedly from the same machine over 1, 8 and 32 connections, to one server
after the other, while the others are stopped. The plain app is that of the fastai course: it calls
``learn.predict`` in the request handler. With a folder of photos (``PHOTOS=folder``) the API is
measured a second time, with the model compiled to 8-bit integers.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from bench.rivals.pages import gradio_app
from bench.support import report
from bench.support.measure import p95
from bench.support.report import Row
from icon_classifier.api.settings import PREFIX
from icon_classifier.cli.smoke import example_photo
from icon_classifier.compact.int8 import quantize
from icon_classifier.files import write_file
from icon_classifier.model.info import read_model_file
from icon_classifier.model.opening import MODEL
from tests.support.servers import ROOT, Server, free_port, project_copy, running

CONNECTIONS = (1, 8, 32)
COLUMNS = ("this API", "Starlette", "Gradio")
LABEL = "grizzly"
TARGETS = {"exact": "≥ 3 times", "8-bit integers": "≥ 4 times"}
"""Photos per second at 8 and 32 connections."""

Serve = Callable[[bytes], contextlib.AbstractContextManager["Target"]]

# One connection in each thread of wrk, so that requests and responses of a thread alternate and
# Gradio's two requests for each photo can be timed as one. Every response must be 200 and contain
# the label.
SCRIPT = """
local ffi = require("ffi")
ffi.cdef "typedef struct {{ long s; long us; }} moment; int gettimeofday(moment *, void *);"
local function now()
  local t = ffi.new("moment")
  ffi.C.gettimeofday(t, nil)
  return tonumber(t.s) * 1e6 + tonumber(t.us)
end
local file = io.open("{body}", "rb")
local body = file:read("*a")
file:close()
local head = {{ ["Content-Type"] = "{kind}" }}
local threads = {{}}
times, bad, first = "", 0, ""
local started, event

function setup(thread) table.insert(threads, thread) end

function request()
  if event then return wrk.format("GET", "{path}/" .. event, {{}}, "") end
  started = now()
  return wrk.format("POST", "{path}", head, body)
end

function response(status, headers, text)
  event = not event and {steps} == 2 and text:match('"event_id": *"([^"]+)"') or nil
  if event then return end
  if status == 200 and text:find("{proof}", 1, true) then
    times = times .. " " .. math.floor(now() - started)
  else
    bad = bad + 1
    if first == "" then first = status .. " " .. text:sub(1, 300) end
  end
end

function done(summary)
  local errors, all, first_bad = summary.errors, "", ""
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  for _, thread in ipairs(threads) do
    all = all .. thread:get("times")
    failed = failed + thread:get("bad")
    if first_bad == "" then first_bad = thread:get("first") end
  end
  print("RESULT " .. summary.duration .. " " .. failed .. all)
  print("FIRST " .. first_bad)
end
"""


@dataclass(frozen=True)
class Target:
    """The request that classifies one photo on a server."""

    server: Server
    path: str
    body: bytes
    kind: str
    steps: int = 1

    @property
    def url(self) -> str:
        return self.server.url.replace("localhost", "127.0.0.1").rstrip("/")


@dataclass(frozen=True)
class Result:
    """One run of wrk: photos per second, milliseconds."""

    rate: float
    p50: float
    p95: float


def run_wrk(target: Target, connections: int, seconds: float, folder: Path) -> Result:
    """Run wrk once.

    Raises
    ------
    RuntimeError
        If a request failed or returned no label, or if too few were completed.
    """
    body, script = folder / "body", folder / "script.lua"
    body.write_bytes(target.body)
    fields = {"path": target.path, "kind": target.kind, "steps": target.steps}
    script.write_text(SCRIPT.format(body=body, proof=LABEL, **fields))
    command = ["wrk", f"-t{connections}", f"-c{connections}", f"-d{math.ceil(seconds)}s"]
    command += ["--timeout", "120s", "-s", script, target.url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"RESULT (\d+) (\d+)([ \d]*)\nFIRST (.*)", output)
    if not found:
        raise RuntimeError(f"wrk printed no result:\n{output}")
    duration, bad, times = int(found[1]), int(found[2]), sorted(map(int, found[3].split()))
    if bad:
        raise RuntimeError(f"{bad} of {bad + len(times)} requests failed; the first: {found[4]}")
    if len(times) < 2:
        raise RuntimeError(
            f"expected 2 responses in {seconds} s, got {len(times)}; raise --seconds"
        )
    return Result(len(times) / (duration / 1e6), statistics.median(times) / 1e3, p95(times) / 1e3)


def time_requests(target: Target, times: int = 5) -> float:
    """Send single requests without a short timeout and return the median duration in seconds."""
    durations = []
    with httpx.Client(base_url=target.url, timeout=120) as client:
        for _ in range(times):
            start = time.perf_counter()
            response = client.post(
                target.path, content=target.body, headers={"Content-Type": target.kind}
            )
            if target.steps == 2:
                response = client.get(
                    f"{target.path}/{response.raise_for_status().json()['event_id']}"
                )
            durations.append(time.perf_counter() - start)
            if response.status_code != 200 or LABEL not in response.text:
                raise RuntimeError(f"expected {LABEL}, got {response.status_code}: {response.text}")
    return statistics.median(durations)


@contextlib.contextmanager
def paused(targets: Iterable[Target]) -> Iterator[None]:
    """Stop servers while another one is measured: torch's threads also spin between requests."""
    servers = [psutil.Process(target.server.process.pid) for target in targets]
    processes = [one for server in servers for one in (server, *server.children(recursive=True))]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


@contextlib.contextmanager
def competitor(serve: Serve, photo: bytes) -> Iterator[Target]:
    """Serve a competitor with the OpenMP wait policy that is faster on this machine.

    torch's threads spin while they wait for each other: fast if they have the cores to themselves,
    and more than ten times slower than sleeping if they do not.
    """
    durations = {}
    for policy in ("ACTIVE", "PASSIVE"):
        with environment("OMP_WAIT_POLICY", policy), serve(photo) as target:
            time_requests(target, 2)
            durations[policy] = time_requests(target)
    best = min(durations, key=durations.__getitem__)
    with environment("OMP_WAIT_POLICY", best), serve(photo) as target:
        yield target


@contextlib.contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        yield


@contextlib.contextmanager
def icon_classifier(photo: bytes, folder: Path) -> Iterator[Target]:
    port = free_port()
    command = ["-m", "icon_classifier", "api", f"--port={port}", f"--model={folder}"]
    unlimited = environment(PREFIX + "RATE", "0")  # one client sends all requests
    with unlimited, running(command, port=port, ready="healthz") as server:
        # Many photos together start the processes that decode.
        files = [("photo", photo)] * 16
        httpx.post(server.url + "classify", files=files, timeout=120).raise_for_status()
        yield Target(server, "/classify", photo, "image/jpeg")


@contextlib.contextmanager
def plain(photo: bytes) -> Iterator[Target]:
    port = free_port()
    command = ["-m", "uvicorn", "bench.rivals.plain_api:app", f"--port={port}", "--no-access-log"]
    with running(command, port=port, ready="healthz") as server:
        form = httpx.Request("POST", server.url, files={"file": ("photo.jpg", photo)})
        yield Target(server, "/classify", form.read(), form.headers["content-type"])


@contextlib.contextmanager
def gradio(photo: bytes) -> Iterator[Target]:
    """Serve Gradio's API, which returns an id first and the result in a second request.

    The photo is uploaded once before, so a real client waits longer than measured here.
    """
    with gradio_app() as server:
        with httpx.Client(base_url=server.url, timeout=120) as client:
            prefix = client.get("config").raise_for_status().json()["api_prefix"]
            files = {"files": ("photo.jpg", photo, "image/jpeg")}
            [path] = client.post(f"{prefix}/upload", files=files).raise_for_status().json()
        body = json.dumps({"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]})
        path = f"{prefix}/call/classify"
        yield Target(server, path, body.encode(), "application/json", steps=2)


@contextlib.contextmanager
def models_of(photos: Path | None) -> Iterator[dict[str, Path]]:
    """Yield folders to serve: of the exact model, and with photos to calibrate on of int8."""
    with tempfile.TemporaryDirectory() as folder:
        models = {"exact": ROOT}
        if photos:
            report.progress("calibrating 8-bit integers")
            data = quantize(read_model_file(ROOT / MODEL), photos)
            models["8-bit integers"] = write_file(project_copy(Path(folder)) / MODEL, data).parent
        yield models


def measure(
    targets: Sequence[Target], connections: int, seconds: float, folder: Path
) -> Iterator[Result]:
    """Run wrk on each server."""
    for target in targets:
        with paused(other for other in targets if other is not target):
            time_requests(target, 1)  # after what wrk left unanswered
            # Long enough for three responses on each connection.
            least = 3 * connections * time_requests(target, 3)
            yield run_wrk(target, connections, max(seconds, least), folder)


def compare_servers(
    models: Mapping[str, Path], rivals: Sequence[Serve], seconds: float = 5
) -> list[Row]:
    """Measure the API with each model, and its rivals."""
    report.progress("starting APIs")
    photo = example_photo().read_bytes()
    rows = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        theirs: list[Target] = []
        for serve in rivals:
            with paused(theirs):
                theirs.append(stack.enter_context(competitor(serve, photo)))
        ours = [stack.enter_context(icon_classifier(photo, each)) for each in models.values()]
        for connections in CONNECTIONS:
            report.progress(f"APIs, connections: {connections}")
            found = list(measure([*ours, *theirs], connections, seconds, Path(folder)))
            for model, result in zip(models, found, strict=False):
                results = [result, *found[len(ours) :]]
                name = f"{model}, {connections} connection{'s' * (connections > 1)}"
                least = TARGETS[model] if connections > 1 else ""
                most = "≤ 0.5 times" if connections == 8 else ""
                rows += [
                    Row(f"{name}: photos/s", "", [each.rate for each in results], least),
                    Row(f"{name}: median", "ms", [each.p50 for each in results]),
                    Row(f"{name}: 95th percentile", "ms", [each.p95 for each in results], most),
                ]
    return rows


if __name__ == "__main__":
    parser = report.parser(__doc__)
    parser.add_argument("photos", type=Path, nargs="?", help="to calibrate 8-bit integers on")
    parser.add_argument("--seconds", type=float, default=5, help="minimum for each run of wrk")
    parser.add_argument("--no-gradio", action="store_true", help="do not measure Gradio")
    options = parser.parse_args()
    rivals = [plain] if options.no_gradio else [plain, gradio]
    with models_of(options.photos) as models:
        rows = compare_servers(models, rivals, options.seconds)
    report.publish(options, [report.table(COLUMNS[: 1 + len(rivals)], rows)])
