"""Metrics of the running server in Prometheus' format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """The metrics of one server, in a registry of its own.

    Parameters
    ----------
    visitors : callable
        Returns how many visitors there are now.
    """

    def __init__(self, visitors: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._options: Any = {"namespace": "icon_classifier", "registry": self.registry}
        self._counts: list[tuple[Counter, Callable[[], int]]] = []
        Gauge("visitors", "Visitors here now.", **self._options).set_function(visitors)
        self.started = Counter("kernels_started", "Kernels started.", ["how"], **self._options)
        self.refused = Counter(
            "visitors_refused", "Visitors refused because no more fit.", **self._options
        )
        self.died = Counter("kernels_died", "Kernels that ended by themselves.", **self._options)
        self.start_seconds = Histogram(
            "kernel_start_seconds",
            "Seconds to start a kernel's process.",
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            **self._options,
        )
        for how in ("forked", "ordinary"):
            self.started.labels(how=how)  # so that a zero is there before the first

    def add_count(self, name: str, description: str, take: Callable[[], int]) -> None:
        """Add a metric that counts up.

        Parameters
        ----------
        name, description : str
            In Prometheus' sense.
        take : callable
            Returns the count since its last call; called whenever the metrics are read.
        """
        self._counts.append((Counter(name, description, **self._options), take))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        for counter, take in self._counts:
            counter.inc(take())
        return generate_latest(self.registry)
