"""Four short trainings on drawn shapes, each with a typical mistake that its loss curve shows."""

from pathlib import Path
from typing import Any

from icon_classifier.dataset.clean import clean
from icon_classifier.dataset.gather import gather
from icon_classifier.dataset.recipes import load_recipe
from icon_classifier.training.learners import load_photos, quiet
from icon_classifier.training.lesson.fine_tuning import plain_learner
from icon_classifier.training.pretrained import Pretrained

MISTAKES = {
    "rate too high": (0.5, 3),
    "rate too low": (1e-7, 3),
    "too few epochs": (1e-3, 1),
    "too many epochs": (1e-2, 9),
}
"""Learning rate and number of epochs of each."""


def make_mistakes(folder: Path, pretrained: Pretrained) -> dict[str, Any]:
    """Train with each mistake, and return fastai's Recorder of each training.

    Parameters
    ----------
    folder : Path
        Where to draw the shapes.
    pretrained : Pretrained
        The network.
    """
    shapes = load_recipe("shapes")
    gathered = gather(shapes, folder, progress=False)
    cleaned = clean(gathered, with_fastai=False, progress=False)
    drawn = load_photos(gathered, shapes.training, groups=cleaned.groups)
    recorders = {}
    for title, (rate, epochs) in MISTAKES.items():
        learn = plain_learner(drawn, shapes.training, pretrained)
        with quiet(), learn.no_bar(), learn.no_logging():
            learn.fit(epochs, rate)
        recorders[title] = learn.recorder
    return recorders
