"""Start one kernel: by a fork of the kernels' parent where that can be done.

:class:`ForkedProvisioner` is registered as Jupyter's kernel provisioner ``icon-classifier``.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Integer

from icon_classifier.errors import KernelError
from icon_classifier.kernels.fork_server import ForkServer
from icon_classifier.kernels.process import can_fork
from icon_classifier.system import memory

PROVISIONER = "icon-classifier"
"""Name of the entry point in the group ``jupyter_client.kernel_provisioners``."""


class ForkedProvisioner(LocalProvisioner):
    """Starts a Python kernel by a fork of the parent.

    Another kernel, or one on a system that cannot fork, is started like a local one. A fork that
    fails is an error and no reason for that: an ordinary kernel takes ten times the memory. The
    kernel gets a folder of its own for temporary files, which is removed with it.
    """

    niceness = Integer(5, help="How much less urgent a kernel is than the server.").tag(config=True)
    forked = False
    scratch: str | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Make the kernel's folder for temporary files."""
        kwargs = await super().pre_launch(**kwargs)
        self._remove_scratch()  # of the run before, at a restart
        folder = getattr(getattr(self.parent, "parent", None), "connection_dir", None)
        self.scratch = tempfile.mkdtemp(prefix="kernel-", dir=folder or None)
        kwargs["env"]["TMPDIR"] = self.scratch
        # Many visitors share few cores.
        kwargs["env"].setdefault("OMP_NUM_THREADS", "1")
        return kwargs

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Fork a kernel.

        Raises
        ------
        KernelError
            If that fails.
        """
        self.forked = can_fork() and _is_own_ipykernel(cmd)
        if not self.forked:
            self.log.warning("Ordinary start of a kernel: %s", cmd)
            info = await super().launch_kernel(cmd, **kwargs)
            memory.end_first(self.pid)
            return info
        manager: Any = self.parent
        cwd = str(kwargs.get("cwd") or Path.cwd())
        server = self._fork_server(cwd)
        try:
            process = await server.fork(manager.connection_file, cwd, kwargs["env"], self.niceness)
        except KernelError:
            await manager.cleanup_resources()
            raise
        self.process = process  # type: ignore[assignment] # as good as a Popen
        # run_kernel() makes the kernel the leader of its own group first thing.
        self.pid = self.pgid = process.pid
        self.cwd = cwd
        return self.connection_info

    async def send_signal(self, signum: int) -> None:
        """Signal the kernel's group, unless it has ended: its number may be another's by now."""
        # jupyter_client interrupts a kernel before it ends it. The kernel may just be keeping a
        # photo whose visitor has said what it shows.
        if signum == signal.SIGINT and getattr(self.parent, "shutting_down", False):
            return
        if self.process is not None and self.process.poll() is None:
            await super().send_signal(signum)

    async def cleanup(self, restart: bool = False) -> None:
        """Remove the kernel's temporary files."""
        await super().cleanup(restart=restart)
        self._remove_scratch()

    def _fork_server(self, cwd: str) -> ForkServer:
        kernels = getattr(self.parent, "parent", None)
        owned = getattr(kernels, "fork_server", None)
        return owned if isinstance(owned, ForkServer) else _shared_fork_server(cwd)

    def _remove_scratch(self) -> None:
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch = None


@functools.cache
def _shared_fork_server(folder: str) -> ForkServer:
    """Start a fork server for a program that uses the provisioner without our kernel manager."""
    server = ForkServer(Path(folder))
    server.start()
    atexit.register(server.stop)
    return server


def _is_own_ipykernel(cmd: list[str]) -> bool:
    """Return whether a command would start ipykernel in this very Python, and no more than that."""
    if not cmd or Path(cmd[0]).resolve() != Path(sys.executable).resolve():
        return False
    options = [word for word in cmd[1:] if word != "-Xfrozen_modules=off"]
    return options[:3] == ["-m", "ipykernel_launcher", "-f"] and len(options) == 4
