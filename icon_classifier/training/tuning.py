"""Gentle fine-tuning: the last stage of a network, starting from a linear probe.

Batch statistics stay frozen, the stage learns far slower than with a lesson's ``fine_tune``, photos
are mixed in pairs (mixup, Zhang et al. 2018), targets are smoothed, and the weights of the second
half of all steps are averaged. The stages before it never change: their output for each photo is
computed once. Validation decides whether the tuned stage is kept; see `try_tuning`.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from icon_classifier.dataset.recipes import Training
from icon_classifier.dataset.splits import assign_folds
from icon_classifier.errors import TrainingError
from icon_classifier.system.torch_setup import import_fastai
from icon_classifier.training.features import first_maps
from icon_classifier.training.pretrained import Pretrained
from icon_classifier.training.probe import Choice, Head, balanced_errors, fit_head

import_fastai()

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.optim.swa_utils import AveragedModel  # noqa: E402

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

_EPOCHS = 3
_BATCH = 32
_STAGE_RATE, _HEAD_RATE = 1e-4, 3e-4
"""Largest learning rates of Adam; a lesson uses 1e-3 to 2e-3."""
_MIXUP = 0.2
_SMOOTHING = 0.05


class Stages:
    """A body in two parts, ``last(first(x))``; both share its weights.

    Attributes
    ----------
    first, last : torch.nn.Module
        What is never changed, and what may be tuned.
    """

    def __init__(self, first: nn.Module, last: nn.Module) -> None:
        self.first, self.last = first.eval(), last.eval()


def last_stage(body: nn.Module) -> Stages | None:
    """Split a body before its last stage.

    Parameters
    ----------
    body : torch.nn.Module
        Of a Learner: a sequence of torchvision's, or one of timm's that is made of blocks.

    Returns
    -------
    Stages or None
        None where the two parts in sequence do not compute what the body does.
    """
    model: Any = getattr(body, "model", body)
    if all(hasattr(model, name) for name in ("conv_stem", "bn1", "blocks", "conv_head", "bn2")):
        blocks = list(model.blocks)
        first: nn.Module = nn.Sequential(model.conv_stem, model.bn1, *blocks[:-1])
        last: nn.Module = nn.Sequential(blocks[-1], model.conv_head, model.bn2)
    elif isinstance(body, nn.Sequential) and len(body) > 1:
        first, last = body[:-1], nn.Sequential(body[-1])
    else:
        return None
    sample = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    stages = Stages(first, last)
    try:
        with torch.inference_mode():
            expected, actual = body.eval()(sample), stages.last(stages.first(sample))
    except (RuntimeError, TypeError):
        return None
    same = actual.shape == expected.shape and torch.allclose(actual, expected, atol=1e-4)
    return stages if same and any(True for _ in last.parameters()) else None


class _Tuned(nn.Module):
    """A stage, an average over its maps and a head: (N, c, h, w) -> (N, C)."""

    def __init__(self, stage: nn.Module, head: Head) -> None:
        super().__init__()
        self.stage = copy.deepcopy(stage).eval()
        self.head = nn.Linear(head.weight.shape[1], head.weight.shape[0])
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(head.weight))
            self.head.bias.copy_(torch.from_numpy(head.bias))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Run the stage and the head."""
        logits: torch.Tensor = self.head(self.stage(maps).mean((2, 3)))
        return logits


def tune(
    stage: nn.Module, head: Head, maps: Floats, targets: Integers, *, seed: int = 42
) -> tuple[nn.Module, Head]:
    """Tune a copy of a stage and a head.

    Parameters
    ----------
    stage : torch.nn.Module
        ``Stages.last``; not changed.
    head : Head
        Where to start.
    maps : numpy.ndarray
        float32, shape (N, c, h, w): the output of the stages before for each photo.
    targets : numpy.ndarray
        int64, shape (N,).
    seed : int
        Seed of the order of photos and of mixup.

    Returns
    -------
    stage : torch.nn.Module
        In evaluation mode.
    head : Head
    """
    tuned = _train(_Tuned(stage, head), maps, targets, seed)
    return tuned.stage, Head(tuned.head.weight.detach().numpy(), tuned.head.bias.detach().numpy())


def _train(model: _Tuned, maps: Floats, targets: Integers, seed: int) -> _Tuned:
    inputs, labels = torch.from_numpy(maps), torch.from_numpy(targets)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    rates = [_STAGE_RATE, _HEAD_RATE]
    groups = [{"params": part.parameters()} for part in (model.stage, model.head)]
    optimizer = torch.optim.AdamW(groups, lr=_HEAD_RATE, weight_decay=0.0)
    steps = _EPOCHS * -(-len(targets) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)
    averaged = AveragedModel(model)
    loss_of = nn.CrossEntropyLoss(label_smoothing=_SMOOTHING)
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(len(targets)) for _ in range(_EPOCHS)])
    for step, batch in enumerate(np.array_split(order, steps)):
        other = random.permutation(batch)
        share = float(random.beta(_MIXUP, _MIXUP))
        logits = model(share * inputs[batch] + (1 - share) * inputs[other])
        loss = share * loss_of(logits, labels[batch])
        loss = loss + (1 - share) * loss_of(logits, labels[other])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step >= steps // 2:
            averaged.update_parameters(model)
    result: _Tuned = averaged.module.eval()  # type: ignore[assignment]
    return result


def cross_tune(
    stage: nn.Module,
    heads: Sequence[Head],
    maps: Floats,
    targets: Integers,
    folds: Integers,
    *,
    seed: int = 42,
    progress: bool = True,
) -> Floats:
    """Compute the logits of each photo by a stage and a head that were tuned without it.

    Parameters
    ----------
    stage, maps, targets, seed
        See :func:`tune`.
    heads : sequence of Head
        Where to start, for each fold: fitted without its photos.
    folds : numpy.ndarray
        int64, shape (N,): the fold of each photo.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    numpy.ndarray
        float32, shape (N, C).
    """
    logits = np.zeros((len(targets), len(heads[0].bias)), np.float32)
    bar = track(heads, "fine-tuning", console=Console(stderr=True), disable=not progress)
    for fold, head in enumerate(bar):
        out = folds == fold
        tuned = _train(_Tuned(stage, head), maps[~out], targets[~out], seed)
        with torch.inference_mode():
            parts = [tuned(each) for each in torch.split(torch.from_numpy(maps[out]), _BATCH)]
        logits[out] = torch.cat(parts).numpy()
    return logits


def try_tuning(
    body: nn.Module,
    pretrained: Pretrained,
    training: Training,
    paths: Sequence[Path],
    photos: tuple[Floats, Integers, Sequence[int]],
    probe: tuple[Choice, Head, Head | None],
    *,
    progress: bool = True,
) -> tuple[Choice, Head, str]:
    """Tune fold by fold, and once more on all photos if that makes fewer errors than the probe.

    Parameters
    ----------
    body : torch.nn.Module
        Of the Learner; its last stage gets the tuned weights if they are kept.
    pretrained, training
        The network and how to train.
    paths : sequence of Path
        The photos, N of them.
    photos : tuple
        Their features (V, N, F), their targets (N,) and their groups of near-duplicates.
    probe : tuple
        What cross-validation chose, the head fitted to all photos, and the network's own.
    progress : bool
        Show progress bars on stderr.

    Returns
    -------
    choice, head
        As given, or those of the tuned network.
    outcome : str
        What became of it, for people.
    """
    stages = last_stage(body)
    choice, head, prior = probe
    if stages is None:
        print(f"!! {pretrained.name} has no last stage that can be tuned alone; it stays frozen.")
        return choice, head, "not possible with this network"
    features, targets, groups = photos
    classes, seed = len(head.bias), training.seed
    size, method = training.image_size, training.resize
    if size is None or method is None:
        raise TrainingError("expected a training with a size and a method of resizing")
    maps = first_maps(paths, stages.first, pretrained, size=size, method=method, progress=progress)
    folds = assign_folds(targets, groups, classes, seed)
    heads = [
        fit_head(features[:, folds != n], targets[folds != n], classes, choice.strength, prior)
        for n in range(int(folds.max()) + 1)
    ]
    logits = cross_tune(stages.last, heads, maps, targets, folds, seed=seed, progress=progress)
    before, after = (int((each.argmax(1) != targets).sum()) for each in (choice.logits, logits))
    counts = f"{after} wrong with it, {before} without, of {len(targets)}"
    print(f"Gentle fine-tuning: {counts}; {'kept' if after < before else 'not kept'}.")
    if after >= before:
        return choice, head, f"tried and not kept: {counts}"
    stage, head = tune(stages.last, head, maps, targets, seed=seed)
    stages.last.load_state_dict(stage.state_dict())
    errors = balanced_errors(logits.argmax(1), targets)
    return replace(choice, logits=logits, errors=errors), head, f"last stage, kept: {counts}"
