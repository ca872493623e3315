"""The options of the JSON API: read once from the environment, typed and validated."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_type_hints

from icon_classifier.errors import SettingsError
from icon_classifier.images import Limits
from icon_classifier.system.memory import usable_cores

PREFIX = "ICON_CLASSIFIER_API_"
"""Prefix of the API's environment variables."""


@dataclass(frozen=True)
class ApiSettings:
    """Limits of the API and the resources that it uses.

    Attributes
    ----------
    model : pathlib.Path
        The folder with export.pkl and export.onnx.
    max_bytes, max_pixels : int
        Maximum size of one photo in bytes and in pixels, uploaded or fetched.
    max_files : int
        Maximum number of photos in one request.
    max_body : int
        Maximum size of a request body in bytes, all its photos together.
    max_memory : int
        Maximum size of all requests in progress in bytes; above it, 503.
    body_seconds, idle_seconds : float
        Maximum duration of receiving a body, and of a pause while it is received.
    answer_seconds : float
        Maximum duration of an answer, from the last byte of the photos.
    queue : int
        Maximum number of photos waiting or being classified; above it, 503.
    threads : int
        Maximum number of photos that are classified at the same time; one that is alone gets as
        many cores.
    fetch_seconds : float
        Maximum duration of fetching a photo, redirects included.
    fetch_redirects : int
        Maximum number of redirects that are followed.
    fetch_parallel : int
        Maximum number of photos being fetched; above it, 503.
    fetch_hosts : tuple of str
        Hosts that may be fetched from although their addresses are private.
    cors_origins : tuple of str
        Origins whose pages may call the API (``*`` for all); empty: CORS is off.
    keys : tuple of str
        Accepted API keys; empty: no key is needed.
    rate : int
        Maximum number of photos a minute for each client, at least ``max_files``; 0: no limit.
    proxies : int
        Number of trusted proxies in front, each of which appends to X-Forwarded-For; 0: the header
        is ignored.
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
    threads: int = field(default_factory=usable_cores)
    fetch_seconds: float = 10.0
    fetch_redirects: int = 3
    fetch_parallel: int = 16
    fetch_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    rate: int = 300
    proxies: int = 0

    def __post_init__(self) -> None:
        may_be_zero = {"rate", "proxies", "fetch_redirects"}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, int | float) and (
                value < 0 or (value == 0 and entry.name not in may_be_zero) or value != value
            ):
                least = "at least 0" if entry.name in may_be_zero else "above 0"
                raise SettingsError(f"expected {entry.name} {least}, got {value}")
        if self.max_files > self.queue:
            raise SettingsError(
                f"expected queue of at least max_files={self.max_files}, got {self.queue}"
            )
        if 0 < self.rate < self.max_files:
            raise SettingsError(
                f"expected rate of 0 or at least max_files={self.max_files}, got {self.rate}"
            )
        if self.max_request > self.max_memory:
            raise SettingsError(
                f"expected max_memory of at least {self.max_request}, the size of the largest "
                f"request, got {self.max_memory}"
            )

    @property
    def max_request(self) -> int:
        """Size of the largest request in bytes: of a body that is sent, or a photo fetched."""
        return max(self.max_body, self.max_bytes)

    @property
    def limits(self) -> Limits:
        """Limits of one photo."""
        return Limits(max_bytes=self.max_bytes, max_pixels=self.max_pixels)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the options from environment variables; list items are separated by commas.

        An empty variable leaves the default.

        Parameters
        ----------
        environ : mapping of str to str, optional
            The environment; tests pass their own.

        Raises
        ------
        SettingsError
            If a variable with our prefix is unknown or its value is invalid.
        """
        types = get_type_hints(cls)
        values: dict[str, Any] = {}
        for name, text in environ.items():
            if not name.startswith(PREFIX):
                continue
            key = name.removeprefix(PREFIX).lower()
            if key not in types:
                known = ", ".join(PREFIX + entry.name.upper() for entry in fields(cls))
                raise SettingsError(f"expected one of {known}, got {name}")
            if not text:
                continue
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
