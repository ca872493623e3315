"""A kernel's process as the server sees it: forked by the parent, so not the server's child."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable

_EXIT_UNKNOWN = 1


def can_fork() -> bool:
    """Return whether kernels can be forked on this system: on Linux from 5.3 on."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        # macOS forks, but its own libraries do not survive it; Windows has no fork.
        return False
    return True


class ForkedProcess:
    """A forked kernel, with the interface of :class:`subprocess.Popen`.

    Parameters
    ----------
    pid : int
        Its process id.
    exit_status : callable
        Given the process id, the exit status, or None if it is not known (yet).
    """

    stdin = stdout = stderr = None

    def __init__(self, pid: int, exit_status: Callable[[int], int | None]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._exit_status = exit_status
        self._gone_since: float | None = None
        try:
            # Refers to this process and to no later one with the same number.
            self._pidfd: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._pidfd = None

    def poll(self) -> int | None:
        """Return the exit status, or None while the kernel runs. Negative: ended by that signal."""
        if self.returncode is None and self._is_gone():
            self.returncode = self._find_status()
            if self.returncode is not None:
                self.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end.

        Parameters
        ----------
        timeout : float, optional
            Seconds.

        Raises
        ------
        subprocess.TimeoutExpired
            If the kernel still runs then.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            left = 1.0 if end is None else end - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(f"kernel {self.pid}", timeout or 0.0)
            if self._is_gone():
                time.sleep(0.01)  # the parent is about to send the status
            elif self._pidfd is not None:
                _wait_readable(self._pidfd, min(left, 1.0))
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal unless the kernel has ended."""
        if self._pidfd is not None and self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        """Ask the kernel to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the kernel."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Free the descriptor."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _is_gone(self) -> bool:
        return self._pidfd is None or _wait_readable(self._pidfd, 0)

    def _find_status(self) -> int | None:
        """Ask the parent; if that is gone too, perhaps the kernel has become our own child."""
        if (status := self._exit_status(self.pid)) is not None:
            return status
        if self._pidfd is not None:
            with contextlib.suppress(ChildProcessError):
                ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
                if ended is not None:
                    killed = ended.si_code != os.CLD_EXITED
                    return -ended.si_status if killed else ended.si_status
        # The parent sends it within milliseconds of the end, or never.
        self._gone_since = self._gone_since or time.monotonic()
        return _EXIT_UNKNOWN if time.monotonic() - self._gone_since > 1.0 else None


def _wait_readable(descriptor: int, seconds: float) -> bool:
    """Wait for a descriptor of any number; ``select`` takes none from 1024 on."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * seconds))
