"""Resize photos in front of a network as fastai's batch transforms do at validation.

fastai samples a batch at the points of a grid. Without the random part of its transforms rows and
columns are independent: each step, and all together, are a matrix for the rows and another for the
columns. ONNX's own operators for resizing are faster, but not the same.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from icon_classifier.conversion.graph import FORWARD_ERRORS
from icon_classifier.conversion.transforms import OTHER_SIDES, Resample, Transforms


class Resampling(nn.Module):
    """Resize photos of one size: a linear map of the rows and one of the columns.

    Parameters
    ----------
    size : tuple of int
        Width and height of the photos.
    steps : sequence of Resample
        How to resize them; without any, photos are returned as they are.

    Attributes
    ----------
    rows : torch.Tensor
        float32, shape (h, H).
    columns : torch.Tensor
        float32, shape (W, w).
    """

    rows: torch.Tensor
    columns: torch.Tensor

    def __init__(self, size: tuple[int, int], steps: Sequence[Resample] = ()) -> None:
        super().__init__()
        self.is_identity = not steps
        width, height = size
        rows, columns = torch.eye(height), torch.eye(width)
        for step in steps:
            area = _area((columns.shape[0], rows.shape[0]), step)
            columns = _matrix(columns.shape[0], step.size[0], area[0], step) @ columns
            rows = _matrix(rows.shape[0], step.size[1], area[1], step) @ rows
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns.T.contiguous())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Resize photos, (N, K, H, W) -> (N, K, h, w)."""
        return image if self.is_identity else self.rows @ (image @ self.columns)


def fit_size(transforms: Transforms, network: nn.Module, classes: int) -> Transforms:
    """Return transforms, with another size if they assume one that the network does not take.

    Parameters
    ----------
    transforms : Transforms
        Of a Learner.
    network : torch.nn.Module
        In evaluation mode; it takes a size if it returns `classes` logits.
    classes : int
        How many.
    """
    sizes = [transforms.pipeline.size, *((side, side) for side in OTHER_SIDES)]
    for width, height in () if transforms.is_sized or transforms.resamples else sizes:
        sample = torch.zeros(1, len(transforms.mean), height, width)
        try:
            with torch.inference_mode():
                if network(sample).shape == (1, classes):
                    return transforms.squished((width, height))
        except FORWARD_ERRORS:
            continue
    return transforms


def _area(size: tuple[int, int], step: Resample) -> tuple[int, int]:
    """Return the size to which fastai averages pixels first where a step makes a photo smaller."""
    if step.mode != "bilinear":
        return size
    # The extent of the grid: 2 with align_corners, else a little less, since it ends at centres.
    extent = 2.0 if step.align_corners else 2 * (1 - 1 / max(step.size))
    # fastai means to compare both sides, but takes the height by the new width, and the width by 2.
    factor = min(size[1] / step.size[0], size[0] / 2) / 2
    if factor <= max(1, 2 / extent):
        return size
    return math.floor(size[0] * (1 / factor)), math.floor(size[1] * (1 / factor))


def _matrix(size: int, out: int, area: int, step: Resample) -> torch.Tensor:
    """Return the matrix of one side, shape (out, size): what torch makes of each unit vector."""
    units = torch.eye(size)[None, :, :, None]  # (1, size, size, 1): a channel for each
    if area != size:
        units = functional.interpolate(units, size=(area, 1), mode="area")
    points = torch.linspace(-1, 1, out) * (1 if step.align_corners else (out - 1) / out)
    grid = torch.stack([torch.zeros(out), points], -1)[None, :, None]  # (1, out, 1, 2)
    sampled = functional.grid_sample(
        units,
        grid,
        mode=step.mode,
        padding_mode=step.pad_mode,
        align_corners=step.align_corners,
    )
    return sampled[0, :, :, 0].T  # (1, size, out, 1) -> (out, size)
