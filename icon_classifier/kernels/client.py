"""A kernel's client that is ready as soon as the kernel is."""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient

# How long an answer on shell may be ahead of its echo on IOPub, in seconds: after that IOPub was
# not connected yet when the kernel spoke.
_ECHO_SECONDS = 0.1
_REPLY_SECONDS = 1.0


class PromptClient(AsyncKernelClient):
    """Waits for a kernel without the fifth of a second that Jupyter's own client spends idle.

    Jupyter's client reads IOPub until 0.2 s pass without a message. This one reads until the kernel
    reports there that it has finished the request that was just answered: nothing older can follow.
    """

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Wait until the kernel answers and its IOPub is connected.

        Called by nbclient before a notebook runs.

        Parameters
        ----------
        timeout : float, optional
            Seconds; without it as long as the kernel lives.

        Raises
        ------
        RuntimeError
            If the kernel dies or does not answer in time, as the base class does.
        """
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            request = self.kernel_info()
            try:
                reply = await self._recv_reply(request, timeout=_REPLY_SECONDS)
            except TimeoutError:
                pass
            else:
                self._handle_kernel_info_reply(reply)
                if await self._read_until_idle(request):
                    return
            if not await self.is_alive():
                raise RuntimeError("Kernel died before replying to kernel_info")
            if time.monotonic() > deadline:
                raise RuntimeError(f"Kernel didn't respond in {timeout} seconds")

    async def _read_until_idle(self, request: str) -> bool:
        while True:
            try:
                message: dict[str, Any] = await self.get_iopub_msg(timeout=_ECHO_SECONDS)
            except Empty:
                return False
            if message["parent_header"].get("msg_id") == request and (
                message["content"].get("execution_state") == "idle"
            ):
                return True
