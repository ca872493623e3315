"""Estimate how long a training will take on this machine."""

import time

import torch
from torch import nn

from icon_classifier.dataset.recipes import Training
from icon_classifier.system.memory import usable_cores
from icon_classifier.training.pretrained import Pretrained
from icon_classifier.training.resizing import SIZES

_SIDE = 224  # pixels of the photo that is timed
_BY_RUNTIME = 0.5
"""Time of ONNX Runtime, which computes the features, relative to torch's; photos are read in it."""

_BACKWARD = 3.2
"""Time of a step of training relative to a prediction."""

_FINDER_PHOTOS = 240
"""Photos that the learning rate finder needs."""

_MISTAKES = 120
"""Predictions of the four short trainings on drawn shapes."""


def describe_cost(
    training: Training, pretrained: Pretrained, *, photos: int, compare: bool, lessons: bool
) -> str:
    """Say in one line whether there is a GPU, and about how long a training will take.

    Parameters
    ----------
    training : Training
        Size of the photos and number of epochs.
    pretrained : Pretrained
        The network; without a GPU one prediction is timed.
    photos : int
        How many photos there are.
    compare, lessons : bool
        Whether the whole network is fine-tuned, and the four lessons are trained, as well.
    """
    if torch.cuda.is_available():
        return f"GPU: {torch.cuda.get_device_name()}. Everything takes a few minutes at most."
    cores = usable_cores()
    step = _seconds(pretrained.network) / cores
    sizes = (training.image_size,) if training.image_size else (*SIZES, SIZES[0])
    area = sum((size / _SIDE) ** 2 for size in sizes)
    features = photos * step * _BY_RUNTIME * area
    parts = [f"about {_rounded(features)} for the features of {photos} photos"]
    if compare:
        epochs = training.frozen_epochs + training.epochs
        steps = _FINDER_PHOTOS + (1 - training.valid_share) * photos * epochs
        parts.append(f"{_rounded(step * _BACKWARD * steps)} for fine-tuning")
    if lessons:
        parts.append(f"{_rounded(step * _MISTAKES * _BACKWARD)} for the lessons")
    return f"No GPU, {cores} cores: {', '.join(parts)}, and half a minute for the rest."


def _seconds(network: nn.Module) -> float:
    """Time one prediction on one core; the processor's time, since others may use the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sample = torch.zeros(1, 3, _SIDE, _SIDE)
        with torch.inference_mode():
            network(sample)
            start = time.process_time()
            network(sample)
            return time.process_time() - start
    finally:
        torch.set_num_threads(threads)


def _rounded(seconds: float) -> str:
    """Return a duration in words, no more exact than an estimate is."""
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} s"
    return f"{round(seconds / 60)} min"
