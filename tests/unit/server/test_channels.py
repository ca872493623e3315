from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import timedelta

import pytest
from tornado.iostream import IOStream
from tornado.locks import Condition
from tornado.websocket import _WebSocketParams

from icon_classifier.server import channels, messages
from icon_classifier.server.channels import _CHUNK, MAX_BACKLOG, MAX_BUFFERED, ChannelsHandler
from icon_classifier.server.messages import Backlog


@pytest.fixture
async def open_page(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Callable[[], ChannelsHandler]]:
    """Make handlers of open connections, of which nothing else is used."""
    pages: list[ChannelsHandler] = []
    monkeypatch.setattr(ChannelsHandler, "_requests", {"kernel": pages})
    monkeypatch.setattr(ChannelsHandler, "_waiting", Counter())
    monkeypatch.setattr(ChannelsHandler, "_queue", {})
    monkeypatch.setattr(ChannelsHandler, "_changed", Condition())

    def open_page() -> ChannelsHandler:
        page = ChannelsHandler.__new__(ChannelsHandler)
        page.kernel_id = "kernel"
        page._backlog = Backlog()
        page._stream = IOStream(socket.socket())
        page._held = page._received = 0
        page._deadline = None
        pages.append(page)
        opened.append(page)
        return page

    opened: list[ChannelsHandler] = []
    yield open_page
    for page in opened:
        close(page)
        page._end_read()
    await settle()


@pytest.fixture
async def pages(open_page: Callable[[], ChannelsHandler]) -> list[ChannelsHandler]:
    """Four pages that send large messages, of which as much has come as may be buffered."""
    pages = [open_page() for _ in range(4)]
    for page in pages:
        page._receive(MAX_BUFFERED // 4 + 1)
    return pages


def close(page: ChannelsHandler) -> None:
    assert page._stream is not None
    page._stream.close()
    page._changed.notify_all()


async def read(*pages: ChannelsHandler) -> list[asyncio.Task[None]]:
    """Let pages read on, in this order; return tasks of which those are done that may."""
    tasks = [asyncio.create_task(page.until_readable()) for page in pages]
    await settle()
    return tasks


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def done(tasks: list[asyncio.Task[None]]) -> list[bool]:
    return [task.done() for task in tasks]


async def test_page_is_not_read_while_its_kernel_has_enough_to_do(
    open_page: Callable[[], ChannelsHandler],
) -> None:
    page = open_page()
    for number in range(MAX_BACKLOG):
        assert not page._is_behind()
        page._backlog.add("shell", str(number), 100)
    assert page._is_behind()
    page._backlog.done("0")
    assert not page._is_behind()
    page._backlog.add("shell", "last", 100)
    close(page)
    assert not page._is_behind(), "nobody waits for a page that is gone"


async def test_large_messages_are_read_one_at_a_time_in_their_order(
    pages: list[ChannelsHandler],
) -> None:
    a, b, c, _ = pages
    tasks = await read(a, c, b)
    assert done(tasks) == [True, False, False]
    await a.until_readable()  # until its message ends
    a._end_read()
    await settle()
    assert done(tasks) == [True, True, False]
    c._end_read()
    await settle()
    assert done(tasks) == [True, True, True]


async def test_slow_message_makes_the_others_wait_for_a_limited_time_and_goes_on(
    pages: list[ChannelsHandler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "MAX_SECONDS", 0.01)
    a, b, _, _ = pages
    tasks = await read(a, b)
    async with asyncio.timeout(5):
        await tasks[1]
    assert done(await read(a)) == [True]


async def test_nobody_reads_while_kernels_have_enough_and_no_time_runs(
    pages: list[ChannelsHandler],
) -> None:
    a, b, c, _ = pages
    c._backlog.add("shell", "photo", MAX_BUFFERED + 1)
    tasks = await read(a, b)
    assert done(tasks) == [False, False]
    assert a._deadline is None
    c._backlog.done("photo")
    c._changed.notify_all()
    await settle()
    assert done(tasks) == [True, False]
    assert a._deadline is not None


async def test_photo_that_awaits_its_click_delays_other_pages_for_a_limited_time(
    pages: list[ChannelsHandler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "MAX_UNCLICKED", 3600)
    monkeypatch.setattr(channels, "_RECHECK", timedelta(seconds=0.01))
    a, b, _, _ = pages
    a._backlog.add("shell", "photo", MAX_BUFFERED + 1, chooses=True)
    a._backlog.done("photo")
    [own] = await read(a)
    assert own.done(), "the next photo replaces it"
    a._end_read()
    [other] = await read(b)
    assert not other.done()
    monkeypatch.setattr(messages, "MAX_UNCLICKED", 0)
    async with asyncio.timeout(5):
        await other


async def test_message_after_a_slow_one_has_a_time_of_its_own(
    pages: list[ChannelsHandler],
) -> None:
    a, b, _, _ = pages
    await read(a)
    deadline = a._deadline
    assert deadline is not None
    a._end_read()
    assert deadline.cancelled()
    tasks = await read(b, a)
    assert done(tasks) == [True, False]


async def test_page_that_is_gone_waits_no_more(pages: list[ChannelsHandler]) -> None:
    a, b, c, _ = pages
    tasks = await read(a, b, c)
    close(b)
    await settle()
    assert done(tasks) == [True, True, False]
    b._end_read()
    a._end_read()
    await settle()
    assert done(tasks) == [True, True, True]


async def test_short_message_does_not_wait(pages: list[ChannelsHandler]) -> None:
    a, b, _, _ = pages
    await read(a)
    b._received = _CHUNK
    assert done(await read(b)) == [True]


async def test_nobody_waits_where_little_is_buffered(pages: list[ChannelsHandler]) -> None:
    pages.pop()._hold(-MAX_BUFFERED // 4 - 1)
    assert done(await read(*pages)) == [True, True, True]


@pytest.mark.parametrize("frame", [3 * _CHUNK + 1, _CHUNK // 2])
async def test_frame_is_read_as_its_page_may(pages: list[ChannelsHandler], frame: int) -> None:
    """Browsers send a message in frames of any size: Chromium's have 130 kB and less."""
    a, b, _, _ = pages
    ours, theirs = map(IOStream, socket.socketpair())
    with closing(ours), closing(theirs):
        protocol = channels._ChunkedProtocol(b, mask_outgoing=False, params=_WebSocketParams())
        protocol.stream = ours
        await read(a)
        content = bytes(range(256)) * 2**10
        theirs.write(content)
        reading = asyncio.create_task(protocol._read_bytes(frame))
        await settle()
        assert not reading.done()
        a._end_read()
        assert await reading == content[:frame]
