import logging
from pathlib import Path

import nbformat
import pytest

from icon_classifier.kernels import warm_up
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


def is_ready_after(seconds: float, folder: Path, notebook: Path) -> bool:
    """Start a parent that runs a notebook ahead; return whether it is ready in time."""
    server = ForkServer(folder, WarmUp(notebook=str(notebook)))
    server.start()
    try:
        return server.wait_until_ready(seconds)
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.skipif(not can_fork(), reason="kernels are forked on Linux only")
def test_notebook_of_an_older_format_is_run_ahead(tmp_path: Path) -> None:
    cell = nbformat.v3.new_code_cell("open('ran', 'w').close()")
    older = nbformat.v3.new_notebook(worksheets=[nbformat.v3.new_worksheet(cells=[cell])])
    notebook = tmp_path / "older.ipynb"
    notebook.write_text(nbformat.v3.writes_json(older))
    assert is_ready_after(3 * warm_up.MAX_SECONDS, tmp_path, notebook)
    assert (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.skipif(not can_fork(), reason="kernels are forked on Linux only")
def test_parent_does_not_wait_for_the_visit_of_a_notebook_that_cannot_be_read(
    tmp_path: Path,
) -> None:
    notebook = tmp_path / "torn.ipynb"
    notebook.write_text('{"cells": [')
    assert is_ready_after(warm_up.MAX_SECONDS - 5, tmp_path, notebook)
