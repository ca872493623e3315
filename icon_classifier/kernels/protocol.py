"""What the server and the parent of the kernels send each other."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

MAX_MESSAGE = 2**16
"""Bytes of the largest message; the system takes packets of at least three times as much."""


class Descriptors(NamedTuple):
    """File descriptors that the parent inherits from the server, and kernels from the parent.

    Attributes
    ----------
    control : int
        The parent's socket to the server; kernels close it.
    lifeline : int
        A pipe whose other end only the server holds: when it closes, the server is gone and the
        kernel ends too.
    counter : int
        See :mod:`icon_classifier.system.counter`.
    slots : int
        See :mod:`icon_classifier.system.slots`.
    """

    control: int
    lifeline: int
    counter: int
    slots: int


@dataclass(frozen=True)
class WarmUp:
    """What is done once in the parent, so that no kernel has to do it again.

    Attributes
    ----------
    preload : tuple of str
        Modules to import, and functions to call as ``module:function``. A function that raises is
        logged, and the warm-up goes on.
    notebook : str or None
        Path of a notebook to run once.
    visit : str or None
        ``module:function`` that plays a visit to that notebook; called with a connected
        ``jupyter_client.AsyncKernelClient`` in an event loop, in a process of its own.
    """

    preload: tuple[str, ...] = ()
    notebook: str | None = None
    visit: str | None = None

    def to_json(self) -> str:
        """Write it as one argument of the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WarmUp:
        """Read what :meth:`to_json` wrote."""
        entries = json.loads(text)
        return cls(tuple(entries["preload"]), entries["notebook"], entries["visit"])


def resolve(name: str) -> Callable[..., Any] | None:
    """Import ``module`` or ``module:function``; return the function, None for a module alone."""
    module, _, function = name.partition(":")
    imported = importlib.import_module(module)
    return getattr(imported, function) if function else None


@dataclass(frozen=True)
class KernelRequest:
    """What the server wants of a new kernel.

    Attributes
    ----------
    number : int
        Identifies the answer.
    connection_file : str
        Path of the file with the kernel's addresses and key.
    cwd : str
        Its working folder.
    env : dict of str to (str or None)
        Where its environment differs from the parent's: values to set, None for what is not set.
    nice : int
        What to add to the process's niceness.
    """

    number: int
    connection_file: str
    cwd: str
    env: dict[str, str | None]
    nice: int = 0
