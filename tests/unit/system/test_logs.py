import logging
import uuid

import pytest

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
