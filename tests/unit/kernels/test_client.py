"""The prompt client, with real kernels."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from jupyter_client.manager import AsyncKernelManager

from icon_classifier.kernels.client import PromptClient


@pytest.fixture
async def kernel() -> AsyncIterator[AsyncKernelManager]:
    manager = AsyncKernelManager(client_factory=PromptClient)
    await manager.start_kernel()
    yield manager
    await manager.shutdown_kernel(now=True)


async def test_client_is_ready_and_receives_every_message(kernel: AsyncKernelManager) -> None:
    client = kernel.client()
    assert isinstance(client, PromptClient)
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        request = client.execute("print('heard')")
        kinds = []
        while "idle" not in kinds:
            message = await client.get_iopub_msg(timeout=60)
            # Nothing of what went before is left over.
            assert message["parent_header"]["msg_id"] == request
            kinds.append(message["content"].get("execution_state", message["msg_type"]))
        assert kinds == ["busy", "execute_input", "stream", "idle"]
    finally:
        client.stop_channels()


async def seconds_to_ready(kernel: AsyncKernelManager) -> float:
    client = kernel.client()
    client.start_channels()
    try:
        start = time.perf_counter()
        await client.wait_for_ready(timeout=60)
        return time.perf_counter() - start
    finally:
        client.stop_channels()


async def test_client_does_not_wait_for_silence(kernel: AsyncKernelManager) -> None:
    await seconds_to_ready(kernel)  # the kernel itself is up now
    # Jupyter's own client needs 0.2 s even for a kernel that answers at once.
    assert min([await seconds_to_ready(kernel) for _ in range(5)]) < 0.2


async def test_dead_kernel_raises(kernel: AsyncKernelManager) -> None:
    client = kernel.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        await kernel.shutdown_kernel(now=True)
        with pytest.raises(RuntimeError, match="died"):
            await client.wait_for_ready(timeout=60)
    finally:
        client.stop_channels()
