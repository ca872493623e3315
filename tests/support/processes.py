"""Run a function in a forked process that can never get back into pytest."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def forked(function: Callable[[], object]) -> int:
    """Fork, call the function in the child, and return the child's process id.

    The child exits with 0, or with 1 and a traceback if the function raises.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status)


def exit_code(pid: int) -> int:
    """Wait for a child and return its exit code; negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
