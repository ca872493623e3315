import logging
from pathlib import Path

import nbformat
import pytest

from icon_classifier.kernels import fork_server as forkserver
from icon_classifier.kernels.parent import WarmParent
from icon_classifier.kernels.process import can_fork
from tests.support.servers import NOTEBOOK, ROOT


def test_filling_the_holes_takes_the_free_blocks() -> None:
    def free() -> int:
        return sum(size * count for size, count in forkserver._free_blocks())

    before = free()
    assert before > 0
    ballast = forkserver.fill_holes()
    # What the filling itself allocates and frees is left.
    assert sum(map(len, ballast)) > 0
    assert free() < before


def test_the_report_of_the_allocator_names_every_size() -> None:
    sizes = [size for size, _ in forkserver._free_blocks()]
    assert sizes == sorted(set(sizes))
    assert all(size % 16 == 0 and size <= 512 for size in sizes)


@pytest.mark.skipif(not can_fork(), reason="kernels are forked on Linux only")
@pytest.mark.parametrize("threads", [False, True])
def test_a_page_is_rehearsed_unless_it_leaves_threads(
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
    parent = WarmParent(ROOT, notebook)
    with caplog.at_level(logging.WARNING):
        parent.start()
        try:
            assert parent.wait_until_ready(120)
            assert parent.rehearsed is not threads
        finally:
            parent.stop()
    assert not caplog.records  # it had one thread
