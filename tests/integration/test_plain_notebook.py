"""The forked kernels serve any Voilà notebook: three plain widgets, no model, Voilà's own page."""

from pathlib import Path

import psutil
import pytest

from icon_classifier.kernels.process import can_fork
from icon_classifier.server.visitor import Visit
from tests.support.servers import PAGE, voila, write_page

pytestmark = pytest.mark.skipif(not can_fork(), reason="kernels are forked on Linux only")

CELL = """
import os
import sys
import ipywidgets as widgets
upload = widgets.FileUpload()
button = widgets.Button(description="Count")
label = widgets.Label()

def count(_):
    button.disabled = True
    size = len(upload.value[-1].content) if upload.value else 0
    ours = sorted(name for name in sys.modules if name.startswith("icon_classifier."))
    label.value = f"{size} {os.getppid()} {' '.join(ours)}"
    button.disabled = False

button.on_click(count)
widgets.VBox([upload, button, label])
"""


async def test_kernels_without_a_model_are_forked_and_import_nothing_of_photos(
    tmp_path: Path,
) -> None:
    write_page(tmp_path, CELL, "icon_classifier.kernels.manager.VisitorKernelManager")
    with voila(tmp_path, notebook=PAGE) as server:
        async with await Visit.open(server.url) as visit:
            size, parent, *modules = (await visit.classify(b"12345")).split()
        children = psutil.Process(server.process.pid).children()
        assert "Traceback" not in server.text, server.text
    assert int(size) == 5
    assert int(parent) in {child.pid for child in children}, "the kernel was not forked"
    packages = {module.split(".")[1] for module in modules}
    assert packages == {"kernels", "system"}
