"""The kernels of the page, with real kernels and without a web server."""

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import Any, Self

import pytest

from icon_classifier.kernels import manager
from icon_classifier.kernels.process import can_fork
from icon_classifier.page.feedback import MAX_BYTES
from icon_classifier.server.app import MAX_OFFLINE, PageKernelManager

PIECE = 2**19
MAX_PIECES = MAX_OFFLINE // PIECE


needs_fork = pytest.mark.skipif(not can_fork(), reason="kernels are forked on Linux only")


@pytest.fixture
async def visitors(tmp_path: Path) -> Any:
    options = {"root_dir": str(tmp_path), "preload": [], "warm_up_visit": "", "max_visitors": 2}
    with tempfile.TemporaryDirectory() as sockets:
        visitors = PageKernelManager(connection_dir=sockets, **options)
        yield visitors
        await visitors.shutdown_all()


class Offline:
    """A kernel whose page has lost its connection."""

    def __init__(self, visitors: PageKernelManager, kernel_id: str, client: Any) -> None:
        self.visitors = visitors
        self.kernel_id = kernel_id
        self.client = client
        self.kept = visitors._kernel_buffers[kernel_id]["buffer"]

    @classmethod
    async def start(cls, visitors: PageKernelManager, stack: contextlib.AsyncExitStack) -> Self:
        kernel_id = await visitors.start_kernel()
        kernel = visitors.get_kernel(kernel_id)
        client = kernel.client()
        client.start_channels()
        stack.callback(client.stop_channels)
        await client.wait_for_ready(timeout=60)
        visitors.notify_connect(kernel_id)
        stream = kernel.connect_iopub()
        visitors.start_buffering(kernel_id, f"{kernel_id}:page", {"iopub": stream})
        page = cls(visitors, kernel_id, client)
        async with asyncio.timeout(60):
            while not page.kept:  # the socket is not connected yet
                client.kernel_info()
                await asyncio.sleep(0.05)
        return page

    def send(self, pieces: int) -> None:
        code = f"for _ in range({pieces}): display({{'text/plain': 'x' * {PIECE}}}, raw=True)"
        self.client.execute(code)

    async def until_kept(self, pieces: int) -> None:
        async with asyncio.timeout(60):
            while sum(len(parts[-1]) > PIECE for _, parts in self.kept) < pieces:
                await asyncio.sleep(0.05)

    async def until_ended(self) -> None:
        async with asyncio.timeout(60):
            while self.kernel_id in self.visitors:
                await asyncio.sleep(0.05)
        assert not self.kept


@needs_fork
async def test_kernel_that_sends_too_much_to_a_page_that_is_gone_is_ended(
    visitors: PageKernelManager,
) -> None:
    """8 MB are kept, so that a page that comes back misses nothing."""
    async with contextlib.AsyncExitStack() as stack:
        page = await Offline.start(visitors, stack)
        page.send(MAX_PIECES - 1)
        await page.until_kept(MAX_PIECES - 1)
        assert page.kernel_id in visitors
        page.send(2)
        await page.until_ended()


@needs_fork
async def test_pages_that_are_gone_share_what_is_kept(visitors: PageKernelManager) -> None:
    """The kernel that has most ends, also where another sends what is too much."""
    async with contextlib.AsyncExitStack() as stack:
        greedy, modest = [await Offline.start(visitors, stack) for _ in range(2)]
        greedy.send(MAX_PIECES - 4)
        await greedy.until_kept(MAX_PIECES - 4)
        modest.send(5)
        await greedy.until_ended()
        await modest.until_kept(5)
        assert modest.kernel_id in visitors


@pytest.mark.parametrize(("variable", "options"), [("abc", {}), ("0", {"trusted_proxies": -1})])
def test_page_is_not_served_with_an_impossible_number_of_proxies(
    monkeypatch: pytest.MonkeyPatch, variable: str, options: dict[str, int]
) -> None:
    monkeypatch.setenv("PROXIES", variable)
    with pytest.raises(SystemExit, match=r"cannot be served: .*(PROXIES|trusted_proxies).*"):
        PageKernelManager(**options)


async def test_empty_variables_mean_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PROXIES", "FEEDBACK_FOLDER", "FEEDBACK_MAX_BYTES", "SITE_URL"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setattr(manager, "can_fork", lambda: False)
    visitors = PageKernelManager(root_dir=str(tmp_path))
    assert (visitors.trusted_proxies, visitors.feedback_folder) == (0, "")
    assert (visitors.feedback_max_bytes, visitors.site_url) == (MAX_BYTES, "")
    await visitors.shutdown_all()


@pytest.mark.parametrize("options", [{"feedback_max_bytes": -1}, {}])
def test_page_is_not_served_with_an_impossible_size_of_feedback(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, int]
) -> None:
    monkeypatch.setenv("FEEDBACK_MAX_BYTES", "5" if options else "5 MB")
    with pytest.raises(SystemExit, match=r"cannot be served: .*(FEEDBACK|feedback)_(MAX|max)_.*"):
        PageKernelManager(**options)


@pytest.mark.parametrize(
    "address", ["site.example", "ftp://site.example", "https://", "javascript:1"]
)
@pytest.mark.parametrize("way", ["option", "variable"])
def test_page_is_not_served_with_an_impossible_address_of_the_site(
    monkeypatch: pytest.MonkeyPatch, address: str, way: str
) -> None:
    monkeypatch.setenv("SITE_URL", address if way == "variable" else "")
    expected = f"cannot be served: expected an http or https address as site_url, got '{address}'"
    with pytest.raises(SystemExit, match=expected):
        PageKernelManager(**({"site_url": address} if way == "option" else {}))
