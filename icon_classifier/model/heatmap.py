"""Heat maps: a model's evidence for one class as a picture to lay over the photo."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE = 64
"""Longer side of the overlay, in pixels; the browser enlarges it smoothly."""

_STOPS = np.array(
    [
        (20, 12, 60, 0),
        (98, 25, 128, 70),
        (197, 50, 102, 130),
        (248, 127, 42, 165),
        (252, 232, 120, 190),
    ],
    np.float64,
)
"""Red, green, blue and opacity from the least evidence to the most. Brightness grows, so that a
colour-blind person can read it."""


@dataclass(frozen=True)
class HeatMap:
    """A heat map to lay over a photo.

    Attributes
    ----------
    png : bytes
        RGBA, transparent where there is no evidence.
    box : tuple of float
        Left, top, width and height of the part that the model saw, as fractions of the photo's
        width and height. A model that crops does not see all of the photo.
    """

    png: bytes
    box: tuple[float, float, float, float]


def relevance(evidence: npt.NDArray[np.float32], index: int) -> npt.NDArray[np.float64]:
    """Scale the evidence for one class to 0 to 1.

    Parameters
    ----------
    evidence : numpy.ndarray
        float32, shape (C, h, w): the head's logits at each cell.
    index : int
        Which class.

    Returns
    -------
    numpy.ndarray
        float64, shape (h, w), 0 to 1.
    """
    values = np.asarray(evidence[index], np.float64)  # (h, w)
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def overlay(heat: npt.NDArray[np.float64]) -> bytes:
    """Colour a heat map.

    Parameters
    ----------
    heat : numpy.ndarray
        float64, shape (h, w), 0 to 1.

    Returns
    -------
    bytes
        A PNG, RGBA.
    """
    height, width = heat.shape
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grey = Image.fromarray(np.asarray(heat, np.float32)).resize(size, Image.Resampling.BICUBIC)
    values = np.clip(np.asarray(grey), 0.0, 1.0)  # (H, W)
    stops = np.linspace(0.0, 1.0, len(_STOPS))
    channels = [np.interp(values, stops, _STOPS[:, channel]) for channel in range(4)]
    file = io.BytesIO()
    Image.fromarray(np.stack(channels, -1).round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
