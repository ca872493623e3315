"""The pages that benchmarks compare: ours, and its rivals by Voilà, Jupyter and Gradio."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import nbformat

from scripts.tools import tool_folder
from tests.support.servers import NOTEBOOK, ROOT, Server, free_port, jupyter, running, voila

CELLS = (
    "from icon_classifier.system.torch_setup import mend_torchvision\nmend_torchvision()",
    "from fastai.vision.all import *\nimport ipywidgets as widgets\n"
    "learn = load_learner('export.pkl', cpu=True)",
    "btn_upload = widgets.FileUpload(accept='image/*', description='Choose a photo')\n"
    "btn_run = widgets.Button(description='Classify Icon')\n"
    "out_pl = widgets.Output()\nlbl_pred = widgets.Label()",
    "def on_click_classify(change):\n"
    "    img = PILImage.create(bytes(btn_upload.value[-1].content))\n"
    "    out_pl.clear_output()\n"
    "    lbl_pred.value = ''\n"
    "    with out_pl: display(img.to_thumb(128, 128))\n"
    "    with learn.no_bar(): pred, pred_idx, probs = learn.predict(img)\n"
    "    lbl_pred.value = f'Prediction: {pred}; Probability: {probs[pred_idx]:.04f}'\n"
    "btn_run.on_click(on_click_classify)",
    "widgets.VBox([widgets.Label('What is it?'), btn_upload, btn_run, out_pl, lbl_pred])",
)
"""The tutorials' notebook, with what ipywidgets 8 and this machine's torchvision need. The line is
emptied first: ipywidgets sends nothing where the same answer comes twice."""


@contextmanager
def plain_page() -> Iterator[Server]:
    """Serve a page whose every kernel loads the Learner with fastai, as tutorials have it."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(notebook, Path(folder) / "plain.ipynb")
        (Path(folder) / "export.pkl").symlink_to(ROOT / "export.pkl")
        with voila(Path(folder), notebook="plain.ipynb") as server:
            yield server


@contextmanager
def jupyter_page() -> Iterator[Server]:
    """Serve our page by Jupyter's own server."""
    with jupyter() as server:
        yield replace(server, url=f"{server.url}voila/render/{NOTEBOOK}")


@contextmanager
def gradio_app() -> Iterator[Server]:
    """Serve a page and an API by Gradio, whose packages are in a folder of their own."""
    tool_folder("gradio")  # installed before the server's time to start begins
    port = free_port()
    command = ["-m", "scripts.tools", "gradio", "-m", "bench.rivals.gradio_page", str(port)]
    with running([*command, str(ROOT / "export.pkl")], port=port, ready="") as server:
        yield server


PAGES: dict[str, Callable[[], AbstractContextManager[Server]]] = {
    "slim": voila,
    "Gradio": gradio_app,
    "stock": lambda: voila(ROOT, "--template=lab"),
    "plain": plain_page,
    "Jupyter": jupyter_page,
}
"""Our page first, then rivals: Gradio; our notebook with Voilà's own template; the tutorials'
notebook; our page on Jupyter's server."""


def add_pages(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark be told which pages to measure."""
    parser.add_argument("--pages", nargs="+", choices=PAGES, default=list(PAGES))
