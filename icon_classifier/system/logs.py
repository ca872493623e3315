"""A server's log: few lines of each kind, none forged, and none that names a kernel.

Whoever knows a kernel's id can use its page, and strangers can cause any number of lines.
"""

from __future__ import annotations

import logging
import re
import time

from icon_classifier.system.texts import printable

MAX_LINES = 10
"""Lines of one kind that are logged in a minute; the next one says how many were left out."""

MAX_LENGTH = 500
"""Characters of a line."""

_EMPTY = "Got events for closed stream %s"
"""What pyzmq logs where a page is left while its kernel still speaks: nothing that is amiss."""

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_FORMATTER = logging.Formatter()


class LogFilter(logging.Filter):
    """Limits and cleans what a handler logs; lines of one kind come from one place in the code."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean a line; False if it is left out."""
        if record.msg == _EMPTY:
            return False
        kind, now = (record.pathname, record.lineno), time.monotonic()
        since, count = self._kinds.get(kind, (now, 0))
        left_out = 0
        if now - since > 60:
            left_out, since, count = max(0, count - MAX_LINES), now, 0
        self._kinds[kind] = since, count + 1
        if count >= MAX_LINES:
            return False
        text = clean(record.getMessage())
        if len(text) > MAX_LENGTH:
            text = f"{text[:MAX_LENGTH]}…"
        record.msg = f"{text} ({left_out} more like this)" if left_out else text
        record.args = ()
        if record.exc_info:
            record.exc_text = clean(_FORMATTER.formatException(record.exc_info))
        return True


def clean(text: str) -> str:
    """Remove kernels' ids, escape control characters, and indent all lines but the first.

    A forged line cannot begin where a line of the log does.
    """
    return "\n    ".join(map(printable, _ID.sub("(id)", text).split("\n")))


def install(log: logging.Logger) -> None:
    """Limit what an application logs, and what others log who have no handler of their own."""
    limit = LogFilter()
    for handler in [*log.handlers, logging.lastResort]:
        if handler is not None:
            handler.addFilter(limit)
