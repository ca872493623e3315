"""Run a command whose standard error is a terminal."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence

from tests.support.servers import ROOT


def run_on_terminal(
    command: Sequence[str], environment: Mapping[str, str] = os.environ
) -> tuple[int, str]:
    """Return the exit code and what the terminal received."""
    import pty  # not on Windows

    screen, terminal = pty.openpty()
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = b""
        with open(screen, "rb", buffering=0) as file, contextlib.suppress(OSError):  # noqa: PTH123
            while part := file.read(4096):  # an OSError ends it on Linux
                shown += part
    return process.returncode, shown.decode()
