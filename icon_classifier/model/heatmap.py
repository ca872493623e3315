"""Heat maps: where in a photo a model's evidence for one class is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class HeatMap:
    """A heat map to lay over a photo.

    Attributes
    ----------
    cells : numpy.ndarray
        uint8, shape (h, w): 0 where the least evidence is, 255 where the most is.
    box : tuple of float
        Left, top, width and height of the part that the model saw, as fractions of the photo's
        width and height. A model that crops does not see all of the photo.
    """

    cells: npt.NDArray[np.uint8]
    box: tuple[float, float, float, float]


def relevance(evidence: npt.NDArray[np.float32], index: int) -> npt.NDArray[np.uint8]:
    """Scale the evidence for one class to 0 to 255.

    Parameters
    ----------
    evidence : numpy.ndarray
        float32, shape (C, h, w): the head's logits at each cell.
    index : int
        Which class.

    Returns
    -------
    numpy.ndarray
        uint8, shape (h, w); zeros where all cells are alike.
    """
    values: npt.NDArray[np.float32] = evidence[index]  # (h, w)
    low, high = values.min(), values.max()
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    cells: npt.NDArray[np.uint8] = np.rint(255 * (values - low) / (high - low)).astype(np.uint8)
    return cells
