from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest
from tornado.iostream import IOStream

from icon_classifier.server.channels import MAX_BACKLOG, ChannelsHandler
from icon_classifier.server.messages import Backlog


@pytest.fixture
async def handler() -> AsyncIterator[ChannelsHandler]:
    """A handler of an open connection, of which nothing else is used."""
    handler = ChannelsHandler.__new__(ChannelsHandler)
    handler._backlog = Backlog()
    handler._stream = IOStream(socket.socket())
    yield handler
    handler._stream.close()


async def test_page_is_not_read_while_its_kernel_has_enough_to_do(
    handler: ChannelsHandler,
) -> None:
    for number in range(MAX_BACKLOG):
        assert not handler._is_behind()
        handler._backlog.add("shell", str(number), 100)
    assert handler._is_behind()
    handler._backlog.done("0")
    assert not handler._is_behind()
    handler._backlog.add("shell", "last", 100)
    handler._stream.close()
    assert not handler._is_behind(), "nobody waits for a page that is gone"
