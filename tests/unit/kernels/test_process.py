"""A kernel's process, played by one that waits for the end of its input."""

import os
import resource
import subprocess
from collections.abc import Iterator

import pytest

from icon_classifier.kernels.process import ForkedProcess, can_fork

pytestmark = pytest.mark.skipif(not can_fork(), reason="kernels are forked on Linux only")


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """This process has 1,024 descriptors open, so that the next has a higher number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("this process may not open so many descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    opened = [os.dup(0)]
    while opened[-1] < 1024:
        opened.append(os.dup(0))
    yield
    for descriptor in opened:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_end_of_a_kernel_is_seen_by_a_server_of_many_connections() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as cat:
        process = ForkedProcess(cat.pid, lambda _: None)
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
        process.kill()
        assert process.wait(timeout=60) == -9
        cat.returncode = -9  # its status has been taken
