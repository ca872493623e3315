"""Find the photos that a model gets wrong or is in doubt about, the likely mislabelled first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icon_classifier.dataset.store import original_name
from icon_classifier.model.session import softmax

_SURE = 0.8
"""Below this probability of its own label a photo is doubtful, though its answer is right."""


@dataclass(frozen=True)
class Doubt:
    """A photo whose answer is wrong or doubtful.

    Attributes
    ----------
    path : Path
        The photo, in a folder named like its label.
    label, answer : str
        What it is said to be, and what the model takes it for.
    own, probability : float
        Probability of the label, and of the answer.
    """

    path: Path
    label: str
    answer: str
    own: float
    probability: float

    @property
    def name(self) -> str:
        """Name of the user's file, with its label as folder."""
        return f"{self.label}/{original_name(self.path)}"

    @property
    def wrong(self) -> bool:
        """Whether the answer is not the label."""
        return self.answer != self.label

    def __str__(self) -> str:
        if self.wrong:
            return f"{self.label} is taken for {self.answer}, {self.probability:.0%}"
        return f"{self.label}, only {self.own:.0%} sure"


def find_doubts(
    paths: Sequence[Path],
    targets: npt.NDArray[np.int64],
    vocab: Sequence[str],
    logits: npt.ArrayLike,
    temperature: float = 1.0,
) -> list[Doubt]:
    """Find wrong and doubtful photos, in rising order of the probability of their own label.

    The less probable a label is to a model that never saw the photo, the likelier it is a mistake
    (self-confidence in Northcutt et al. 2021, "Confident Learning").

    Parameters
    ----------
    paths : sequence of Path
        N photos.
    targets : numpy.ndarray
        int64, shape (N,): the index of each label in `vocab`.
    vocab : sequence of str
        The C labels.
    logits : array_like
        Shape (N, C), of each photo by a model that was not trained on it.
    temperature : float, optional
        What logits are divided by.
    """
    probabilities = softmax(np.asarray(logits, np.float64) / temperature)
    own = probabilities[np.arange(len(targets)), targets]
    answers, highest = probabilities.argmax(axis=1), probabilities.max(axis=1)
    return [
        Doubt(paths[i], vocab[targets[i]], vocab[answers[i]], float(own[i]), float(highest[i]))
        for i in np.argsort(own, kind="stable")
        if answers[i] != targets[i] or own[i] < _SURE
    ]
