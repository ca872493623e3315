"""What kernels share; the limit and the leaving are in tests/integration."""

from pathlib import Path

import pytest

from icon_classifier.kernels.manager import ForkedKernelManager, VisitorKernelManager


async def test_kernels_share_one_event_logger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of their own would leave its logger in ``logging`` for ever."""
    monkeypatch.setattr("icon_classifier.kernels.manager.can_fork", lambda: False)
    visitors = VisitorKernelManager(root_dir=str(tmp_path))
    first, second = (ForkedKernelManager(parent=visitors) for _ in range(2))
    assert first.event_logger is second.event_logger
    await visitors.shutdown_all()


def test_kernel_has_a_last_activity_from_the_start() -> None:
    """The sweep for idle kernels reads it also of a kernel that is just starting."""
    assert ForkedKernelManager().last_activity.tzinfo is not None
