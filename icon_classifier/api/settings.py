"""The options of the JSON API: read once from the environment, typed and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_type_hints

from icon_classifier.errors import SettingsError
from icon_classifier.images import Limits

PREFIX = "ICON_CLASSIFIER_API_"
"""What every environment variable of the API starts with."""


def cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class ApiSettings:
    """What the API allows, and how much of the machine it takes.

    Attributes
    ----------
    model : pathlib.Path
        The folder with export.pkl and export.onnx.
    max_bytes, max_pixels : int
        Size of one photo at most, in bytes and in pixels; also for what is fetched.
    max_files : int
        Photos in one request at most.
    max_body : int
        Bytes of one request at most, all its photos together.
    max_memory : int
        Bytes of all requests in progress at most; beyond it, 503.
    body_seconds, idle_seconds : float
        Seconds in which a request must have arrived, and the longest pause meanwhile.
    answer_seconds : float
        Seconds that an answer may take once the photos are there.
    queue : int
        Photos waiting or in work at most; beyond it, 503.
    batch : int
        Photos that go through the network together at most.
    step : int
        Those of them that one core takes at a time at most: on a processor more cost more each,
        since what lies between the network's layers no longer fits into the caches.
    batch_wait : float
        Seconds that a photo waits at most for others that are coming.
    threads : int
        Threads that decode and run the network; a photo that comes alone gets them all.
    fetch_seconds : float
        Seconds that fetching a photo may take, redirects included.
    fetch_redirects : int
        Redirects that are followed at most.
    fetch_parallel : int
        Photos fetched at the same time at most; beyond it, 503.
    fetch_hosts : tuple of str
        Names of hosts that may be fetched from although their addresses are private.
    cors_origins : tuple of str
        Origins whose pages may call the API (``*`` for all); none: CORS is off.
    keys : tuple of str
        API keys; none: everybody may ask.
    rate : int
        Photos a minute for each client at most; 0: no limit.
    proxies : int
        Proxies in front, each of which appends to X-Forwarded-For; 0: that header is not believed.
    """

    model: Path = Path()
    max_bytes: int = Limits.max_bytes
    max_pixels: int = Limits.max_pixels
    max_files: int = 16
    max_body: int = 50 * 2**20
    max_memory: int = 256 * 2**20
    body_seconds: float = 30.0
    idle_seconds: float = 10.0
    answer_seconds: float = 30.0
    queue: int = 64
    batch: int = 16
    step: int = 2
    batch_wait: float = 0.002
    threads: int = field(default_factory=cores)
    fetch_seconds: float = 10.0
    fetch_redirects: int = 3
    fetch_parallel: int = 16
    fetch_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    rate: int = 300
    proxies: int = 0

    def __post_init__(self) -> None:
        may_be_zero = {"rate", "proxies", "fetch_redirects", "batch_wait"}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, int | float) and (
                value < 0 or (value == 0 and entry.name not in may_be_zero) or value != value
            ):
                raise SettingsError(f"expected {entry.name} above 0, got {value}")
        if self.max_files > self.queue:
            raise SettingsError(
                f"expected queue to hold a request of max_files={self.max_files}, got {self.queue}"
            )

    @property
    def limits(self) -> Limits:
        """What one photo may cost."""
        return Limits(max_bytes=self.max_bytes, max_pixels=self.max_pixels)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the options that are set; lists are separated by commas.

        Parameters
        ----------
        environ : mapping of str to str, optional
            The environment; tests give their own.

        Raises
        ------
        SettingsError
            If a variable with our prefix is unknown or its value makes no sense.
        """
        types = get_type_hints(cls)
        values: dict[str, Any] = {}
        for name, text in environ.items():
            if not name.startswith(PREFIX):
                continue
            key = name.removeprefix(PREFIX).lower()
            if key not in types:
                known = ", ".join(PREFIX + entry.name.upper() for entry in fields(cls))
                raise SettingsError(f"there is no option {name}; there are {known}")
            try:
                values[key] = _parse(text, types[key])
            except ValueError as error:
                raise SettingsError(
                    f"expected {name} as {types[key].__name__}, got {text!r}"
                ) from error
        return cls(**values)


def _parse(text: str, kind: Any) -> Any:
    if kind in (int, float, Path):
        return kind(text)
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)
