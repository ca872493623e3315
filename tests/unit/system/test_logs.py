import asyncio
import logging
import uuid

import pytest
import zmq
from zmq.eventloop.zmqstream import ZMQStream

from icon_classifier.system import logs


def line(text: str, *arguments: object, number: int = 1) -> logging.LogRecord:
    """A line that comes from line ``number`` of a file."""
    error = ValueError(f"kernel {uuid.uuid4()}\n[Voila] forged")
    about = (ValueError, error, None)
    return logging.LogRecord("x", logging.INFO, "file.py", number, text, arguments, about)


def test_log_has_ten_lines_of_a_kind_in_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    limit = logs.LogFilter()
    assert [limit.filter(line("x")) for _ in range(12)] == [True] * 10 + [False] * 2
    assert limit.filter(line("another kind", number=2))
    now += 61
    next_one = line("x")
    assert limit.filter(next_one)
    assert next_one.getMessage() == "x (2 more like this)"


def test_line_names_no_kernel_and_is_not_forged() -> None:
    kernel = str(uuid.uuid4())
    record = line("Starting buffering for %s", f"{kernel}:x\n[Voila] WARNING | \x1b[31m\rforged")
    assert logs.LogFilter().filter(record)
    text = logging.Formatter().format(record)
    assert kernel not in text
    assert text.startswith("Starting buffering for (id):x\n    [Voila] WARNING")
    assert "\n[Voila]" not in text
    assert not {"\x1b", "\r"} & set(text)
    assert "kernel (id)" in text


def test_long_line_is_cut_off() -> None:
    record = line("%s", "x" * 60_000)
    assert logs.LogFilter().filter(record)
    assert len(record.getMessage()) < 600


async def test_page_that_is_left_while_its_kernel_speaks_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    closed = asyncio.Event()
    with zmq.Context() as context, context.socket(zmq.PAIR) as kernel:
        kernel.bind("inproc://kernel")
        page = ZMQStream(context.socket(zmq.PAIR))
        page.connect("inproc://kernel")

        def leave(_: object) -> None:
            page.io_loop.add_callback(page.close)
            page.io_loop.add_callback(page.io_loop.add_callback, closed.set)

        page.on_recv(leave)
        kernel.send(b"first")
        kernel.send(b"second")
        await closed.wait()
    [record] = caplog.records
    assert record.name == "tornado.general"
    assert not logs.LogFilter().filter(record)
