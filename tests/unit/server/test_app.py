"""The kernels of the page, with real kernels and without a web server."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

import pytest

from icon_classifier.kernels.process import can_fork
from icon_classifier.server.app import MAX_OFFLINE, PageKernelManager

PIECE = 2**19


@pytest.mark.skipif(not can_fork(), reason="kernels are forked on Linux only")
@pytest.mark.parametrize("too_much", [False, True])
async def test_kernel_that_sends_too_much_to_a_page_that_is_gone_is_ended(
    tmp_path: Path, too_much: bool
) -> None:
    """8 MB are kept, so that a page that comes back misses nothing."""
    pieces = MAX_OFFLINE // PIECE + (1 if too_much else -1)
    code = f"for _ in range({pieces}): display({{'text/plain': 'x' * {PIECE}}}, raw=True)"
    options = {"root_dir": str(tmp_path), "preload": [], "warm_up_visit": "", "max_visitors": 2}
    async with contextlib.AsyncExitStack() as stack:
        sockets = stack.enter_context(tempfile.TemporaryDirectory())
        visitors = PageKernelManager(connection_dir=sockets, **options)
        stack.push_async_callback(visitors.shutdown_all)
        kernel_id = await visitors.start_kernel()
        kernel = visitors.get_kernel(kernel_id)
        client = kernel.client()
        client.start_channels()
        stack.callback(client.stop_channels)
        await client.wait_for_ready(timeout=60)
        visitors.notify_connect(kernel_id)
        stream = kernel.connect_iopub()
        visitors.start_buffering(kernel_id, f"{kernel_id}:page", {"iopub": stream})
        kept = visitors._kernel_buffers[kernel_id]["buffer"]
        async with asyncio.timeout(60):
            while not kept:  # the socket is not connected yet
                client.kernel_info()
                await asyncio.sleep(0.05)
        client.execute(code)
        async with asyncio.timeout(60):
            if too_much:
                while kernel_id in visitors:
                    await asyncio.sleep(0.05)
                assert not kept
            else:
                while sum(len(parts[-1]) > PIECE for _, parts in kept) < pieces:
                    await asyncio.sleep(0.05)
                assert kernel_id in visitors


@pytest.mark.parametrize(("variable", "options"), [("abc", {}), ("0", {"trusted_proxies": -1})])
def test_page_is_not_served_with_an_impossible_number_of_proxies(
    monkeypatch: pytest.MonkeyPatch, variable: str, options: dict[str, int]
) -> None:
    monkeypatch.setenv("PROXIES", variable)
    with pytest.raises(SystemExit, match=r"cannot be served: .*(PROXIES|trusted_proxies).*"):
        PageKernelManager(**options)


@pytest.mark.parametrize("options", [{"feedback_max_bytes": -1}, {}])
def test_page_is_not_served_with_an_impossible_size_of_feedback(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, int]
) -> None:
    monkeypatch.setenv("FEEDBACK_MAX_BYTES", "5" if options else "5 MB")
    with pytest.raises(SystemExit, match=r"cannot be served: .*(FEEDBACK|feedback)_(MAX|max)_.*"):
        PageKernelManager(**options)
