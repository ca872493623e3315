"""A first visit before the first visitor: the warm parent runs the page once, then clears up.

What Python does late, at the first use - imports, caches, specialised bytecode, the decoder's and
the model's buffers - is then done in the parent, once, and shared by every kernel forked from it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import io
import json
import logging
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comm
import ipywidgets
from ipykernel.zmqshell import ZMQInteractiveShell
from jupyter_client.connect import write_connection_file

from icon_classifier.kernels.kernel import ForkedKernelApp, PageKernel

SECONDS = 60.0
"""After this long a rehearsal is broken off."""

_log = logging.getLogger(__name__)


def rehearse(notebook: Path) -> None:
    """Run a notebook in this very process, upload a photo and press the button.

    The names of the widgets are those of DESIGN.md, decision 6; a notebook without them is only
    run. Nothing of it is left: another shell with another namespace takes its place, every widget
    is closed, every thread ended.

    Parameters
    ----------
    notebook : pathlib.Path
        An .ipynb file.
    """
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder, _restored():
        connection_file = str(Path(folder, "kernel.json"))
        write_connection_file(
            connection_file,
            key=secrets.token_hex(16).encode(),
            transport="ipc",
            ip=str(Path(folder, "ipc")),
        )
        visitor = os.fork()
        if visitor == 0:
            _visit(connection_file, notebook)
        app = ForkedKernelApp.instance()
        app.prepare()
        shell: Any = app.shell
        app.connect(connection_file)
        loop = asyncio.get_event_loop_policy().get_event_loop()
        loop.call_later(SECONDS, loop.stop)
        try:
            app.start()
        finally:
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


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Put back what a kernel replaces in the process that it runs in."""
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


def _visit(connection_file: str, notebook: Path) -> None:
    """Be the visitor, in a forked process that never returns."""
    status = 1
    try:
        os.setsid()
        signal.alarm(int(SECONDS))
        _play(connection_file, notebook)
        status = 0
    except BaseException:  # noqa: BLE001 - the parent must not run on twice
        _log.exception("the rehearsal's visitor failed")
    finally:
        os._exit(status)


def _play(connection_file: str, notebook: Path) -> None:
    # Imported here, in the process that ends, so that the parent does not carry them.
    from jupyter_client.blocking.client import BlockingKernelClient

    client = BlockingKernelClient(connection_file=connection_file)
    client.load_connection_file()
    client.start_channels()
    client.wait_for_ready(timeout=SECONDS)
    for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            client.execute_interactive(
                "".join(cell["source"]),
                store_history=False,
                timeout=SECONDS,
                output_hook=lambda _: None,
            )
    names = client.execute_interactive(
        "", user_expressions={name: f"{name}.model_id" for name in ("btn_upload", "btn_run")}
    )["content"]["user_expressions"]
    if all(answer["status"] == "ok" for answer in names.values()):
        upload, button = (answer["data"]["text/plain"].strip("'") for answer in names.values())
        photo = _photo()
        state = {"name": "a.jpg", "type": "image/jpeg", "size": len(photo), "last_modified": 0}
        update = {"method": "update", "state": {"value": [state]}}
        paths = [["value", 0, "content"]]
        _send(client, upload, {**update, "buffer_paths": paths}, [photo])
        _send(client, button, {"method": "custom", "content": {"event": "click"}}, [])
    client.kernel_info(reply=True, timeout=SECONDS)  # the shell channel keeps the order
    client.shutdown()
    time.sleep(1)  # the message is on its way; when the kernel has it, it ends this process


def _send(client: Any, model_id: str, data: dict[str, Any], buffers: list[bytes]) -> None:
    message = client.session.msg("comm_msg", {"comm_id": model_id, "data": data})
    client.session.send(client.shell_channel.socket, message, buffers=buffers)


def _photo() -> bytes:
    """Draw a JPEG of noise: every decoder of a photo is used, and nobody's photo is."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.effect_noise((640, 480), 80).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()
