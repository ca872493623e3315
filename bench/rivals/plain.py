"""The rival that everybody starts from: a page whose every kernel loads fastai."""

from __future__ import annotations

from pathlib import Path

import nbformat

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


def write_plain_page(folder: Path, export: Path) -> Path:
    """Write the plain notebook and link the model that it loads.

    Parameters
    ----------
    folder : Path
        Where to write; must exist.
    export : Path
        The export.pkl.

    Returns
    -------
    Path
        The notebook.
    """
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    path = folder / "plain.ipynb"
    nbformat.write(notebook, path)
    (folder / "export.pkl").symlink_to(export.resolve())
    return path
