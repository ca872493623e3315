import functools
import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from icon_classifier.system.memory import (
    AT_REST,
    MAX_KERNELS,
    PER_ORDINARY_KERNEL,
    kernel_capacity,
    limited_growth,
    memory_limit,
    slot_count,
    usable_cores,
)

ROOT = Path(__file__).resolve().parents[3]
MB = 2**20


def machine(root: Path, **files: str) -> Path:
    """Lay out a small /proc and /sys."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:        2097152 kB\nMemFree:  1 kB\n")
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_without_control_groups_it_is_the_ram(tmp_path: Path) -> None:
    assert memory_limit(machine(tmp_path)) == 2048 * MB


def test_version_2(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        **{
            "proc/self/cgroup": "0::/app/web\n",
            "sys/fs/cgroup/app/web/memory.max": "max\n",
            "sys/fs/cgroup/app/memory.max": str(512 * MB),
        },
    )
    assert memory_limit(root) == 512 * MB


def test_version_1(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        **{
            "proc/self/cgroup": "4:memory:/docker/abc\n1:cpu:/\n0::/\n",
            "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": str(300 * MB),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert memory_limit(root) == 300 * MB


def test_a_path_of_the_host_that_leads_nowhere_in_the_container(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        **{
            "proc/self/cgroup": "4:memory:/docker/abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(256 * MB),
        },
    )
    assert memory_limit(root) == 256 * MB


def test_this_machine() -> None:
    assert memory_limit() > 64 * MB


@pytest.mark.parametrize(
    ("limit", "visitors"), [(64 * MB, 1), (AT_REST, 1), (512 * MB, 20), (2**40, MAX_KERNELS)]
)
def test_kernel_capacity(limit: int, visitors: int) -> None:
    assert kernel_capacity(limit) == visitors


def test_where_kernels_are_not_forked_fewer_fit() -> None:
    assert kernel_capacity(1024 * MB, per_kernel=PER_ORDINARY_KERNEL) == 4


@pytest.mark.parametrize(
    ("limit", "cores", "works"),
    [(64 * MB, 8, 1), (512 * MB, 2, 1), (1024 * MB, 8, 2), (2**40, 8, 8)],
)
def test_slot_count(limit: int, cores: int, works: int) -> None:
    assert slot_count(limit, cores) == works


# Fills 64 MB and frees them, a few times over; prints how many pages the last time had to ask for.
# Small pages (41: PR_SET_THP_DISABLE): of huge ones a handful fill as much.
FILLING = """
import ctypes, resource, sys
import numpy as np
from icon_classifier.system.memory import keep_freed
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)
if sys.argv[1] == "keep":
    keep_freed()
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(64 * 2**20, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the GNU library's")
def test_what_was_freed_is_kept_for_the_next() -> None:
    asked = {}
    for way in ("keep", "return"):
        told = subprocess.check_output([sys.executable, "-c", FILLING, way], cwd=ROOT)
        asked[way] = int(told)
    assert asked["return"] >= 64 * MB // 65536  # a page has 4 to 64 kB
    assert asked["keep"] < asked["return"] / 10


def test_usable_cores_counts_all_where_there_is_no_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    assert usable_cores(tmp_path) == 3


V1 = "sys/fs/cgroup/cpu"
V2 = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("group", "files", "cores"),
    [
        ("0::/", {f"{V2}/cpu.max": "max 100000"}, 8),
        ("0::/", {f"{V2}/cpu.max": "200000 100000"}, 2),
        ("0::/", {f"{V2}/cpu.max": "50000 100000"}, 1),
        ("0::/", {f"{V2}/cpu.max": "1600000 100000"}, 8),
        (
            "0::/pods/web",
            {f"{V2}/pods/web/cpu.max": "max 1000", f"{V2}/pods/cpu.max": "2500 1000"},
            3,
        ),
        ("0::/host/only", {f"{V2}/cpu.max": "400000 100000"}, 4),
        (
            "3:cpu,cpuacct:/web",
            {f"{V1}/cpu.cfs_quota_us": "-1", f"{V1}/cpu.cfs_period_us": "100000"},
            8,
        ),
        (
            "3:cpu,cpuacct:/",
            {f"{V1}/cpu.cfs_quota_us": "150000\n", f"{V1}/cpu.cfs_period_us": "100000\n"},
            2,
        ),
        (
            "3:cpuset:/",
            {f"{V1}/cpu.cfs_quota_us": "100000", f"{V1}/cpu.cfs_period_us": "100000"},
            8,
        ),
    ],
)
def test_usable_cores_are_no_more_than_the_control_groups_allow(
    group: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    root = machine(tmp_path, **{"proc/self/cgroup": f"{group}\n"}, **files)
    assert usable_cores(root) == cores


READ_LARGE_PHOTO = """
photo = encode(Image.new("RGB", (6000, 6000)), "JPEG")
work = lambda: read_image(photo)
"""
RUN_NETWORK = """
model = open_model()
batch = np.stack([model.transform(Image.new("RGB", (640, 480)))] * 8)
work = lambda: model.predict_arrays(batch)
"""
BEYOND_THE_LIMIT = """
import numpy as np
import pytest
from PIL import Image

from icon_classifier.errors import ImageTooLargeError
from icon_classifier.images import read_image
from icon_classifier.model.opening import open_model
from icon_classifier.system import memory
from tests.support.pictures import encode

{prepare}
memory.MAX_GROWTH = 20 * 2**20
memory.limit_process()
for _ in range(2):
    with pytest.raises(ImageTooLargeError):
        work()
memory.trim_heap()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts private memory")
def test_memory_of_a_block_is_limited_and_then_no_more() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    # Not by malloc, which may have memory that it can use again.
    ask = functools.partial(mmap.mmap, -1, 2**26, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with pytest.raises(OSError, match="memory"), limited_growth(2**24):
        ask()
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    ask().close()


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
@pytest.mark.parametrize("prepare", [READ_LARGE_PHOTO, RUN_NETWORK], ids=["photo", "network"])
@pytest.mark.usefixtures("project_model")
def test_beyond_the_limit_of_a_process_a_picture_is_too_large(prepare: str) -> None:
    """And the process goes on: Pillow and ONNX Runtime report it, they do not crash.

    In a process of its own, because this one may have freed memory which it can use again.
    """
    code = BEYOND_THE_LIMIT.format(prepare=prepare)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the GNU library only")
def test_fill_heap_leaves_no_gaps_for_small_blocks() -> None:
    program = """
import ctypes
from icon_classifier.system.memory import fill_heap
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(104) for _ in range(300)]
for block in blocks[::2]:
    libc.free(block)
fill_heap()
print(len({libc.malloc(104) for _ in range(100)} & set(blocks)))
"""
    left = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True
    )
    assert left.stdout.decode().strip() == "0", left.stdout
