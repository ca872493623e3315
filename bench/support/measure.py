"""What benchmarks share: medians and percentiles, measured processes."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.servers import ROOT


def median_ms(call: Callable[[], object], repeats: int = 30) -> float:
    """Return the median of the milliseconds of a call, after two to warm up."""
    call(), call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile, which is one of the values."""
    return sorted(values)[max(0, round(0.95 * len(values)) - 1)]


def run_process(command: Sequence[str | Path]) -> tuple[float, float]:
    """Run a command to its end; return its CPU seconds and its peak memory in MB.

    Raises
    ------
    subprocess.CalledProcessError
        If it fails; with its standard error.
    """
    silent, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=silent, stderr=pipe, text=True) as process:
        errors = process.stderr.read() if process.stderr else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=errors)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
