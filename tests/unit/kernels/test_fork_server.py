"""Answers of the kernels' parent that come when nobody waits for them any more."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from icon_classifier.errors import KernelError
from icon_classifier.kernels.fork_server import ForkServer
from icon_classifier.kernels.protocol import KernelRequest


@pytest.fixture
def kernel() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until it is ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("answered", ["at the timeout", "after it"])
async def test_kernel_whose_request_has_timed_out_is_ended(
    kernel: subprocess.Popen[bytes],
    answered: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ForkServer(tmp_path)
    server._ready.set()
    sent: list[KernelRequest] = []

    def send(request: KernelRequest) -> None:
        sent.append(request)
        if answered == "at the timeout":
            server._handle({"number": request.number, "pid": kernel.pid})

    monkeypatch.setattr(server, "_send", send)
    monkeypatch.setattr(server, "_fork_timeout", 0)
    with pytest.raises(KernelError, match="does not answer"):
        await server.fork("kernel.json", str(tmp_path), {}, 0)
    if answered == "after it":
        server._handle({"number": sent[0].number, "pid": kernel.pid})
    assert kernel.wait(10) == -signal.SIGKILL
    server._fail_requests()  # none is left


@pytest.mark.parametrize("end", ["answer", "error", "end of the parent"])
def test_request_that_was_cancelled_does_not_end_the_thread(
    kernel: subprocess.Popen[bytes], end: str, tmp_path: Path
) -> None:
    server = ForkServer(tmp_path)
    server._requests[7] = future = Future()
    future.cancel()
    if end == "answer":
        server._handle({"number": 7, "pid": kernel.pid})
        assert kernel.wait(10) == -signal.SIGKILL
    elif end == "error":
        server._handle({"number": 7, "error": "no memory"})
    else:
        server._fail_requests()
    assert not server._requests
