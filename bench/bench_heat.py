"""Does the page's heat map agree with Grad-CAM on the Learner? ``make bench-heat PHOTOS=folder``.

For each photo, Spearman's rank correlation between the cells of our map (the head applied to each
cell, forward only) and Grad-CAM (Selvaraju et al. 2017; package ``grad-cam``) at the same feature
map, for the predicted class.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from bench.support import report
from bench.support.report import Row
from icon_classifier.compact.photos import readable_photos
from icon_classifier.images import read_image_file
from icon_classifier.model.heatmap import relevance
from icon_classifier.model.opening import EXPORT, open_model
from icon_classifier.system.torch_setup import import_fastai
from tests.support.servers import ROOT

PHOTOS = 60


def pooled(cam: npt.NDArray[np.float32], shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Average an enlarged map over its cells: (H, W) -> (h, w)."""
    (h, w), (down, across) = shape, (cam.shape[0] // shape[0], cam.shape[1] // shape[1])
    cells = cam[: h * down, : w * across].reshape(h, down, w, across)
    return np.asarray(cells.mean((1, 3)), np.float64)


def main(folder: Path) -> list[Row]:
    """Compare the maps of some photos of a folder."""
    import_fastai()
    import torch
    from fastai.learner import load_learner
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network = load_learner(ROOT / EXPORT).model.eval()
    model = open_model(ROOT)
    cam = GradCAM(model=network, target_layers=[network[0]])
    found = []
    for path in readable_photos(folder)[:PHOTOS]:
        photo = read_image_file(path)
        prediction = model.predict(photo, explain=True)
        index = model.labels.index(prediction.label)
        heat = relevance(prediction.evidence, index)
        batch = torch.from_numpy(model.transform(photo)[None])
        grad_cam = cam(input_tensor=batch, targets=[ClassifierOutputTarget(index)])[0]
        if grad_cam.any():  # Grad-CAM sets negative evidence to 0; all of it may be negative
            cells = pooled(grad_cam, heat.shape)  # type: ignore[arg-type]
            found.append(float(spearmanr(heat.ravel(), cells.ravel()).statistic))
    return [
        Row("photos", "", [len(found)]),
        Row("mean", "", [statistics.mean(found)]),
        Row("median", "", [statistics.median(found)]),
        Row("lowest tenth, below", "", [sorted(found)[len(found) // 10]]),
    ]


if __name__ == "__main__":
    parser = report.parser(__doc__)
    parser.add_argument("photos", type=Path)
    options = parser.parse_args()
    report.publish(options, [report.table(["rank correlation"], main(options.photos))])
