"""Run a notebook once in the parent of the kernels, before the first visitor.

What Python does late, at the first use - imports, caches, specialised bytecode, the buffers of
decoders and models - is then done in the parent, once, and shared by every kernel forked from it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import comm
import ipywidgets
from ipykernel.zmqshell import ZMQInteractiveShell
from jupyter_client.connect import write_connection_file

from icon_classifier.kernels.kernel import ForkedKernelApp, PageKernel
from icon_classifier.kernels.protocol import resolve
from icon_classifier.kernels.sharing import executed_code

MAX_SECONDS = 60.0
"""After this long the warm-up is broken off."""

_log = logging.getLogger(__name__)


def run_notebook(notebook: Path, visit: str | None = None) -> dict[int, CodeType]:
    """Run a notebook in this very process, and let a child process visit it.

    Nothing of it is left: another shell with another namespace takes its place, every widget is
    closed, every thread ended.

    Parameters
    ----------
    notebook : pathlib.Path
        An .ipynb file.
    visit : str, optional
        ``module:function`` to call in the child with a connected client of the kernel, after the
        last cell.

    Returns
    -------
    dict of int to types.CodeType
        The code that ran, for :func:`.sharing.arrange`.
    """
    with (
        tempfile.TemporaryDirectory(prefix="warm-up-") as folder,
        _restored(),
        contextlib.ExitStack() as stack,
    ):
        connection_file = str(Path(folder, "kernel.json"))
        write_connection_file(
            connection_file,
            key=secrets.token_hex(16).encode(),
            transport="ipc",
            ip=str(Path(folder, "ipc")),
        )
        visitor = os.fork()
        if visitor == 0:
            _visit_and_exit(connection_file, notebook, visit)
        visitor_end = os.pidfd_open(visitor)
        app = ForkedKernelApp.instance()
        app.prepare()
        shell: Any = app.shell
        executed = stack.enter_context(executed_code())
        app.connect(connection_file)
        loop = asyncio.get_event_loop_policy().get_event_loop()
        loop.call_later(MAX_SECONDS, loop.stop)

        def stop_if_failed() -> None:
            # Otherwise ipykernel is shutting down, as it was asked to. Its control thread ends its
            # child processes first, this one too, and must not lose its sockets meanwhile.
            loop.remove_reader(visitor_end)
            ended = os.waitid(os.P_PIDFD, visitor_end, os.WEXITED | os.WNOWAIT)
            if ended is not None and ended.si_code == os.CLD_EXITED and ended.si_status:
                loop.stop()

        loop.add_reader(visitor_end, stop_if_failed)
        try:
            app.start()
        finally:
            loop.remove_reader(visitor_end)
            os.close(visitor_end)
            os.kill(visitor, signal.SIGKILL)
            os.waitpid(visitor, 0)
            ipywidgets.Widget.close_all()
            for open_comm in list(comm.get_comm_manager().comms.values()):
                comm.get_comm_manager().unregister_comm(open_comm)
            app.close()
            atexit.unregister(app.close)
            atexit.unregister(shell.atexit_operations)
            shell.atexit_operations()
            shell.restore_sys_module_state()
            for kind in (PageKernel, ZMQInteractiveShell, ForkedKernelApp):
                kind.clear_instance()
            loop.close()
            asyncio.set_event_loop(None)
    return executed


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Restore what a kernel replaces in the process that it runs in."""
    streams = sys.stdout, sys.stderr, sys.displayhook, sys.excepthook
    environment, arguments, path = dict(os.environ), sys.argv[:], sys.path[:]
    handlers = logging.getLogger("tornado").handlers[:]
    sigint = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        sys.stdout, sys.stderr, sys.displayhook, sys.excepthook = streams
        os.environ.clear()
        os.environ.update(environment)
        sys.argv, sys.path = arguments, path
        logging.getLogger("tornado").handlers[:] = handlers
        signal.signal(signal.SIGINT, sigint)


def _visit_and_exit(connection_file: str, notebook: Path, visit: str | None) -> None:
    """Run the notebook's cells from a forked process; never returns."""
    status = 1
    try:
        os.setsid()
        signal.alarm(int(MAX_SECONDS))
        asyncio.run(_visit(connection_file, notebook, visit))
        status = 0
    except BaseException:  # noqa: BLE001 - the parent must not run on twice
        _log.exception("the warm-up failed")
    finally:
        os._exit(status)


async def _visit(connection_file: str, notebook: Path, visit: str | None) -> None:
    # Imported here, in the process that ends, so that the parent does not carry them.
    import nbformat
    from jupyter_client.asynchronous.client import AsyncKernelClient

    client = AsyncKernelClient(connection_file=connection_file)
    client.load_connection_file()
    client.start_channels(hb=False)  # no thread: nobody asks whether the kernel lives
    await client.wait_for_ready(timeout=MAX_SECONDS)
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":
            await client.execute_interactive(
                cell.source,
                store_history=False,
                timeout=MAX_SECONDS,
                output_hook=lambda _: None,
            )
    play = resolve(visit) if visit else None
    if play is not None:
        try:
            await play(client)
        except Exception as error:  # noqa: BLE001 - another notebook than the visit is made for
            _log.warning("%s could not visit %s: %s", visit, notebook, error)
    await client.kernel_info(reply=True, timeout=MAX_SECONDS)  # the shell channel keeps the order
    with contextlib.suppress(Exception):  # the kernel may be gone before its reply is read
        await client.shutdown(reply=True, timeout=MAX_SECONDS)
