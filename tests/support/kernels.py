"""Kernels of tests that run beside others."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from traitlets.config import Config


@contextlib.contextmanager
def own_sockets() -> Iterator[Config]:
    """Give a kernel sockets that are files, for as long as it lives.

    A kernel on TCP is told which ports to take, and finds now and then that a browser or a server
    of another test took one in the meantime; nbclient then waits in vain.
    """
    # Not pytest's folder: the path of a socket may have 100 bytes or so.
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:
        yield Config({"KernelManager": {"transport": "ipc", "ip": str(Path(folder, "ipc"))}})
