"""ipykernel's application in two halves: before a fork and after it.

The first half runs once, in the parent (:mod:`.parent`), and needs no thread and no socket:
options, IPython's shell with its magics, the kernel object, the widgets' comm targets. The second
half runs in each forked child: sockets, threads, output streams. A page of memory that a child only
reads stays shared with the parent.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import random
import shutil
import signal
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import ipywidgets
import zmq
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from jupyter_client.session import new_id
from zmq.eventloop.zmqstream import ZMQStream

from icon_classifier.kernels.protocol import Descriptors, KernelRequest
from icon_classifier.system import counter, memory, slots

ARGUMENTS = (
    # A visitor of a page types no code: no history to keep in a database, by a thread of its own.
    "--HistoryManager.enabled=False",
    # What C code prints goes to the server's log, not through two more threads into the page.
    "--IPKernelApp.capture_fd_output=False",
    # Would warn at each start that there is no debugger, and that sockets are not encrypted.
    "--IPKernelApp.log_level=40",
    # A picture is copied into its message: to send it without a copy takes three threads more.
    f"--Session.copy_threshold={2**40}",
    # The lifeline tells when the server is gone; no thread needs to ask each second.
    "--IPKernelApp.parent_handle=0",
)

TERMINATING = (signal.SIGTERM, signal.SIGINT)
"""Signals that a kernel obeys and its parent does not; blocked while one becomes the other."""

_IDLE_SECONDS = 0.25
"""Seconds without a message after which a kernel returns freed memory to the system."""


class PageKernel(IPythonKernel):
    """The kernel of a page: drops each message's content, and returns freed memory when idle."""

    _idle_timer: Any = None

    def post_handler_hook(self) -> None:
        """Clean up after a message; ipykernel calls it in the main thread, super must be called."""
        super().post_handler_hook()
        # ipykernel keeps a message for its header, and whatever was scheduled meanwhile keeps a
        # copy of that context: an upload of 25 MB would stay long after its answer.
        message = self.get_parent("shell")
        if message:
            message["content"], message["buffers"] = {}, []
        if self._idle_timer is not None:
            self.io_loop.remove_timeout(self._idle_timer)
        self._idle_timer = self.io_loop.call_later(_IDLE_SECONDS, memory.trim_heap)


class ForkedKernelApp(IPKernelApp):
    """ipykernel's application, with :meth:`initialize` cut in two."""

    kept: Any = None  # by the parent, for its kernels
    heartbeat_socket: Any = None

    def prepare(self) -> None:
        """Do what can be done before the fork: no thread is started, no socket opened."""
        super(IPKernelApp, self).initialize(list(ARGUMENTS))
        self.init_pdb()
        self.init_blackhole()
        self.kernel = PageKernel.instance(
            parent=self,
            session=self.session,
            log=self.log,
            profile_dir=self.profile_dir,
            user_ns=self.user_ns,
        )
        self.init_path()
        self.init_shell()
        self.init_gui_pylab()
        self.init_extensions()
        self.init_code()
        ipywidgets.register_comm_target()

    def connect(self, connection_file: str) -> None:
        """Do the rest, in the process that is the kernel."""
        self.connection_file = connection_file
        self.session.pid = os.getpid()
        self.session.session = new_id()
        self.init_connection_file()
        self.init_sockets()
        self.init_heartbeat()
        self.write_connection_file()
        self.log_connection_info()
        self.init_io()
        self.init_signal()
        self.init_kernel()
        sys.stdout.flush()
        sys.stderr.flush()

    def init_heartbeat(self) -> None:
        """Answer heartbeats in the control thread, instead of in three threads for that alone.

        ipykernel keeps them apart so that a heart beats on while C code holds Python's lock. Here
        nobody listens: the server sees by the process whether a kernel is alive.
        """
        context: Any = self.context
        self.heartbeat_socket = context.socket(zmq.ROUTER)
        self.heartbeat_socket.linger = 1000
        self.hb_port = self._bind_socket(self.heartbeat_socket, self.hb_port)
        heart = ZMQStream(self.heartbeat_socket, self.control_thread.io_loop)
        heart.on_recv(heart.send_multipart)

    def end_control_thread(self) -> None:
        """Let the control thread finish, which still publishes that a shutdown has been handled.

        First of all at the end: where it meets a closed socket, zmq aborts the process. ipykernel's
        own functions for the end, which atexit calls, close some sockets before.
        """
        if self.control_thread is not None and self.control_thread.is_alive():
            self.control_thread.stop()
            self.control_thread.join()

    def close(self) -> None:
        """Close the sockets; called at the end of the process."""
        self.end_control_thread()
        if self.heartbeat_socket is not None:
            self.heartbeat_socket.close()
        super().close()

    def log_connection_info(self) -> None:
        """Keep the ports and print nothing: nobody else connects to this kernel."""
        kinds = ("shell", "iopub", "stdin", "hb", "control")
        self._ports = {kind: getattr(self, f"{kind}_port") for kind in kinds}

    def init_kernel(self) -> None:
        """Connect the kernel of :meth:`prepare` with its sockets and threads.

        The main thread itself reads the shell channel. The thread that ipykernel has for it serves
        subshells, of which a page has none.
        """
        kernel: Any = self.kernel
        shell: Any = self.shell
        self.shell_channel_thread = None
        kernel.ident = str(uuid.uuid4())
        kernel.shell_stream = ZMQStream(self.shell_socket)
        kernel.control_stream = ZMQStream(self.control_socket, self.control_thread.io_loop)
        kernel.control_thread = self.control_thread
        kernel.debug_shell_socket = self.debug_shell_socket
        kernel.iopub_thread = self.iopub_thread
        kernel.iopub_socket = self.iopub_socket
        kernel.stdin_socket = self.stdin_socket
        kernel._stdout, kernel._stderr = sys.stdout, sys.stderr
        for publisher in (shell.displayhook, shell.display_pub):
            publisher.session = self.session
            publisher.pub_socket = self.iopub_socket
        shell.displayhook.topic = kernel._topic("execute_result")
        self.displayhook.get_execution_count = lambda: kernel.execution_count
        self.control_thread.start()
        kernel.record_ports({f"{name}_port": port for name, port in self._ports.items()})


def run_kernel(app: ForkedKernelApp, request: KernelRequest, descriptors: Descriptors) -> None:
    """Turn a freshly forked process into a kernel, and run it to its end.

    Parameters
    ----------
    app : ForkedKernelApp
        As :meth:`ForkedKernelApp.prepare` left it.
    request : KernelRequest
        What the server wants.
    descriptors : Descriptors
        All but ``control`` stay open.
    """
    os.setsid()  # a group of its own: an interrupt reaches the kernel and what it started
    for number in (*TERMINATING, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TERMINATING)
    _close_all_but({0, 1, 2, *descriptors} - {descriptors.control})
    counter.share(descriptors.counter)
    slots.share(descriptors.slots)
    if request.nice:
        os.nice(request.nice)
    for name, value in request.env.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    os.chdir(request.cwd)
    sys.argv = ["ipykernel_launcher", "-f", request.connection_file]
    tempfile.tempdir = None  # looked up again, in this environment
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    gc.enable()
    app.connect(request.connection_file)
    memory.limit_process()  # the threads have their stacks
    app.control_thread.io_loop.add_callback(_watch, app, request, descriptors.lifeline)
    try:
        app.start()
    finally:
        app.end_control_thread()


def _watch(app: ForkedKernelApp, request: KernelRequest, lifeline: int) -> None:
    """End when the server does. Runs in the control thread, as the main one may be busy."""

    def server_is_gone(*_: Any) -> None:
        # Nobody is left to clean up after this kernel.
        shutil.rmtree(request.env.get("TMPDIR") or "", ignore_errors=True)
        app.cleanup_connection_file()
        with contextlib.suppress(OSError):
            Path(request.connection_file).parent.rmdir()  # if this was the last
        os._exit(1)

    loop = app.control_thread.io_loop
    loop.add_handler(lifeline, server_is_gone, loop.READ)


def _close_all_but(kept: set[int]) -> None:
    for entry in list(Path("/proc/self/fd").iterdir()):
        if (number := int(entry.name)) not in kept:
            with contextlib.suppress(OSError):  # the listing's own is closed already
                os.close(number)


def leave(status: int) -> None:
    """End a forked process as an ordinary one would end, but without freeing its objects.

    To free each of them would write to, and so copy, the pages still shared with the parent.
    """
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.__stdout__.flush()  # type: ignore[union-attr]
        sys.__stderr__.flush()  # type: ignore[union-attr]
    os._exit(status)
