"""Figures of the running server, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """What is counted. Each server has a registry of its own.

    Parameters
    ----------
    visitors : callable
        Tells how many visitors there are now.
    predictions : callable
        Tells how many predictions were made since it was last called.
    """

    def __init__(self, visitors: Callable[[], int], predictions: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        here: Any = {"namespace": "icon_classifier", "registry": self.registry}
        Gauge("visitors", "Visitors here now.", **here).set_function(visitors)
        self.started = Counter("kernels_started", "Kernels started.", ["how"], **here)
        self.refused = Counter("visitors_refused", "Visitors who found no room.", **here)
        self.predictions = Counter("predictions", "Photos answered in forked kernels.", **here)
        self._take_predictions = predictions
        self.died = Counter("kernels_died", "Kernels that ended by themselves.", **here)
        self.start_seconds = Histogram(
            "kernel_start_seconds",
            "Seconds to start a kernel's process.",
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            **here,
        )
        for how in ("forked", "ordinary"):
            self.started.labels(how=how)  # so that a zero is there before the first

    def text(self) -> bytes:
        """Give all figures in Prometheus' text format."""
        self.predictions.inc(self._take_predictions())
        return generate_latest(self.registry)
