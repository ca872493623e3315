"""Limits on memory and cores, what fits in them, and the heap of this process."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Found once, before any fork: a child that looked them up would write to more of its memory. The
# GNU library has both, others do not.
_malloc_trim, _mallopt = (
    getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
    for name in ("malloc_trim", "mallopt")
)

AT_REST = 180 * 2**20
"""Bytes that the server and the parent of the kernels take, after a first visitor."""

PER_KERNEL = 16 * 2**20
"""Bytes that each further kernel adds, page open and a prediction made."""

PER_ORDINARY_KERNEL = 170 * 2**20
"""Bytes that each takes where kernels cannot be forked."""

MAX_GROWTH = 450 * 2**20
"""Bytes that a kernel may allocate beyond what it starts with, for its network above all."""

MAX_DECODING = 280 * 2**20
"""Bytes that decoding a picture may allocate. The largest that are read take 270 MB."""

MAX_KERNELS = 200
"""However large the machine: what one event loop serves without getting slow."""

PER_SLOT = 512 * 2**20
"""Bytes of a host's memory for each photo that may be computed at the same time: with all kernels
there some 20 MB of 512 are left, and the network alone takes 30 for a moment."""

_MAX_GAPS = 1000
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_PR_SET_THP_DISABLE = 41
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def memory_limit(root: Path = Path("/")) -> int:
    """Return the memory that this process may use.

    The lowest of the limits of its control group and of the groups above it, version 2 and
    version 1, and of the machine's RAM.

    Parameters
    ----------
    root : pathlib.Path, optional
        Folder that holds ``proc`` and ``sys``.

    Returns
    -------
    int
        Bytes.
    """
    limits = [_ram(root)]
    for group in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(group / name).strip()
            if text.isdigit():  # version 2 says "max" for none
                limits.append(int(text))
    return min(limits)


def usable_cores(root: Path = Path("/")) -> int:
    """Count the cores that this process may use: fewer than the machine has in many a container.

    Those that it may run on, and no more than the CPU time that its control group and the groups
    above it may take, version 2 and version 1; part of a core counts as one.

    Parameters
    ----------
    root : pathlib.Path, optional
        Folder that holds ``proc`` and ``sys``.
    """
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    for group in _groups(root, "cpu"):
        version_1 = (_read(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        match (_read(group / "cpu.max") or " ".join(version_1)).split():
            case [quota, period] if quota.isdigit():  # "max" or -1 for none
                cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def kernel_capacity(limit: int, per_kernel: int = PER_KERNEL) -> int:
    """Return how many kernels fit a limit on memory.

    Parameters
    ----------
    limit, per_kernel : int
        Bytes: allowed in all, added by each kernel.

    Returns
    -------
    int
        From 1 to :data:`MAX_KERNELS`.
    """
    return max(1, min(MAX_KERNELS, (limit - AT_REST) // per_kernel))


def slot_count(limit: int, cores: int) -> int:
    """Return how many photos may be decoded or classified at the same time.

    Parameters
    ----------
    limit : int
        Bytes, as :func:`memory_limit` finds them.
    cores : int
        More slots than these would only make each photo take longer.

    Returns
    -------
    int
        From 1 to ``cores``.
    """
    return max(1, min(cores, limit // PER_SLOT))


def limit_process() -> None:
    """Limit this process: its memory, and that it is ended before others for want of it.

    Linux only; elsewhere nothing is limited.

    Beyond the limit Python raises MemoryError, which becomes a sentence for the visitor. There is
    no core file if it crashes: that would be a visitor's photo, on the disk.
    """
    limit = _data_limit(MAX_GROWTH)
    if limit is None:
        return
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    end_first("self")


@contextlib.contextmanager
def limited_growth(growth: int) -> Iterator[None]:
    """Limit what a block of code may add to the memory of this process; Linux only.

    Beyond the limit Python raises MemoryError. Other threads are limited with it.

    Parameters
    ----------
    growth : int
        Bytes beyond what the process has. A lower limit that it has already stays.
    """
    limit = _data_limit(growth)
    if limit is None:
        yield
        return
    import resource  # not on Windows

    before = resource.getrlimit(resource.RLIMIT_DATA)
    if before[0] != resource.RLIM_INFINITY:
        limit = min(limit, before[0])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _data_limit(growth: int) -> int | None:
    """Return `growth` beyond the private, writable memory of this process, if that can be told."""
    statm = _read(Path("/proc/self/statm"))
    return int(statm.split()[5]) * os.sysconf("SC_PAGE_SIZE") + growth if statm else None


def end_first(pid: int | str | None) -> None:
    """Let the system end a process before the server where memory runs out; Linux only."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("500")


def trim_heap() -> None:
    """Return to the system what Python has freed but the C library still keeps."""
    if _malloc_trim is not None:
        _malloc_trim(0)


def fill_heap() -> None:
    """Occupy the small free blocks of the C library for good, so that forked children do not.

    They would put what they allocate into them, one here and one there, and for each copy a whole
    page. Without the gaps it stands together in new pages.
    """
    if _mallopt is None:
        return
    malloc = ctypes.CDLL(None).malloc
    malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    # Each size that the library keeps apart. When several blocks are neighbours they are cut from a
    # large one: the gaps of this size are filled.
    for size in range(1032, 8, -16):
        previous, neighbours = 0, 0
        for _ in range(_MAX_GAPS):
            block = malloc(size)
            neighbours = neighbours + 1 if block == previous + size + 8 else 0
            previous = block or 0
            if neighbours == 4:
                break


def return_freed() -> None:
    """Let this process return blocks of 128 kB and more to the system whenever they are freed.

    The C library does so too, but only up to the size of the largest that was freed before.
    """
    if _mallopt is not None:
        _mallopt(_M_MMAP_THRESHOLD, 2**17)


def keep_freed() -> None:
    """Let this process keep what it has freed, for what it will ask for next.

    For training on a CPU, the opposite of :func:`trim_heap`: the C library returns each large
    tensor to the system when it is freed, which then has to clear the pages of the next one. For
    batches of 32 photos that takes as long as the arithmetic.
    """
    if _mallopt is not None:
        _mallopt(_M_MMAP_MAX, 0)
        _mallopt(_M_TRIM_THRESHOLD, -1)  # the greatest size: never


def avoid_huge_pages() -> None:
    """Keep to small pages of memory: of a huge one a forked child would copy more than it writes.

    Where the system gives huge pages only to those who ask, a prediction may have some: the C
    library asks for them, and the network's 30 MB are then mapped in a third of the time.
    """
    try:
        on_request = "[madvise]" in _HUGE_PAGES.read_text()
    except OSError:
        on_request = False
    if not on_request:
        ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Find the folders of this process's control group and of those above it, of both versions.

    In a container the path may be the host's and lead nowhere: the group itself is then mounted
    at the base.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        folders = []
        if not controllers:  # version 2
            folders = ["", "unified"]
        elif controller in controllers.split(","):
            folders = [controller]
        for folder in folders:
            base = root / "sys/fs/cgroup" / folder
            group = base / path.lstrip("/")
            while group != base and group.is_relative_to(base):
                yield group
                group = group.parent
            yield base


def _ram(root: Path) -> int:
    for line in _read(root / "proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        if key == "MemTotal":
            return int(value.split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, ValueError):  # not there, or not text: says nothing
        return ""
