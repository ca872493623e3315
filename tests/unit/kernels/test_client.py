"""The prompt client, with real kernels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from queue import Empty
from typing import Any

import pytest
from jupyter_client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

from icon_classifier.kernels.client import PromptClient
from tests.support.servers import own_sockets


@pytest.fixture
async def kernel() -> AsyncIterator[AsyncKernelManager]:
    with own_sockets() as config:
        manager = AsyncKernelManager(client_factory=PromptClient, config=config)
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


async def test_client_does_not_wait_for_silence(
    kernel: AsyncKernelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = kernel.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)  # the kernel and its IOPub are up now
        silences = 0

        receive = client.iopub_channel.get_msg

        async def get_message(timeout: float | None = None) -> dict[str, Any]:
            nonlocal silences
            try:
                message: dict[str, Any] = await receive(timeout=timeout)
            except Empty:
                silences += 1
                raise
            return message

        monkeypatch.setattr(client.iopub_channel, "get_msg", get_message)
        await client.wait_for_ready(timeout=60)
        assert silences == 0
        # Jupyter's own client reads until 0.2 s pass without a message.
        await AsyncKernelClient.wait_for_ready(client, timeout=60)
        assert silences == 1
    finally:
        client.stop_channels()


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
