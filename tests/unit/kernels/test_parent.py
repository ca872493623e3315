import logging
from pathlib import Path

import nbformat
import pytest

from icon_classifier.kernels.fork_server import ForkServer
from icon_classifier.kernels.process import can_fork
from icon_classifier.kernels.protocol import WarmUp
from tests.support.servers import NOTEBOOK, ROOT


@pytest.mark.slow
@pytest.mark.skipif(not can_fork(), reason="kernels are forked on Linux only")
@pytest.mark.parametrize("threads", [False, True])
def test_notebook_is_run_ahead_unless_it_leaves_threads(
    threads: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notebook = ROOT / NOTEBOOK
    if threads:
        cell = (
            "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"
        )
        notebook = tmp_path / "threads.ipynb"
        cells = [nbformat.v4.new_code_cell(cell)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), notebook)
    server = ForkServer(ROOT, WarmUp(("icon_classifier.page.ui",), str(notebook)))
    with caplog.at_level(logging.WARNING):
        server.start()
        try:
            assert server.wait_until_ready(120)
            assert server.ran_notebook is not threads
        finally:
            server.stop()
    assert not caplog.records  # it had one thread
