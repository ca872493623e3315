"""A linear probe: logistic regression on what a pretrained network sees, with a head start.

The network was trained on a thousand classes, and its last layer says how each of them looks. For
every class of ours the probe starts at the row of that layer which fires most on our photos, and
learns only what has to change; how far it may go is chosen by cross-validation, and so is whether
the head start is worth having at all (for pictures unlike any photo it is not).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from icon_classifier.dataset.duplicates import deal_folds
from icon_classifier.training.calibration import Integers, fit_temperature, softmax

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """A linear head: logits are ``features @ weight.T + bias``.

    Attributes
    ----------
    weight, bias : numpy.ndarray
        float32, shapes (C, F) and (C,).
    """

    weight: Floats
    bias: Floats

    def __call__(self, features: Floats) -> Floats:
        """Turn features of shape (N, F) into logits of shape (N, C)."""
        return np.asarray(features @ self.weight.T + self.bias)


Prior = Head
"""The pretrained network's own classifier: C is the number of its classes."""


@dataclass(frozen=True)
class Strength:
    """How a head is fitted.

    Attributes
    ----------
    prior : bool
        Start at the matching rows of the network's own classifier.
    penalty : float
        L2 penalty on what is learnt beyond that, for standardised features.
    """

    prior: bool
    penalty: float


GRID = (
    *(Strength(True, penalty) for penalty in (10.0, 1.0, 0.1, 0.03)),
    *(Strength(False, penalty) for penalty in (0.1, 0.01)),
)
"""What `choose` tries, from the stiffest to the loosest."""


@dataclass(frozen=True)
class Choice:
    """What cross-validation chose.

    Attributes
    ----------
    strength : Strength
        How to fit the head.
    logits : numpy.ndarray
        float32, shape (N, C): of each photo by a head that had not seen it.
    tried : tuple of (Strength, int, float)
        All that was tried, with its errors and its negative log-likelihood.
    """

    strength: Strength
    logits: Floats
    tried: tuple[tuple[Strength, int, float], ...]


def fit_head(
    features: Floats, targets: Integers, classes: int, strength: Strength, prior: Prior | None
) -> Head:
    """Fit a head.

    Parameters
    ----------
    features : numpy.ndarray
        float32, shape (V, N, F): V views of N photos.
    targets : numpy.ndarray
        int64, shape (N,).
    classes : int
        Number of classes.
    strength : Strength
        How far to go from where it starts.
    prior : Head or None
        The network's own classifier; None if it has none for these features.
    """
    with _one_thread():
        start = None
        if strength.prior and prior is not None:
            start = _matching_rows(_fires(features, prior), targets, classes, prior)
        return _Rows(features, targets, classes, start).fit(strength)


def _one_thread() -> Any:
    """Keep BLAS to one thread: on matrices as small as these, several only wait for each other."""
    return threadpool_limits(1, user_api="blas")


class _Rows:
    """Photos to fit heads to, standardised once for all strengths.

    Parameters
    ----------
    features, targets, classes
        See :func:`fit_head`.
    matching : Head or None
        The rows of the network's own classifier that a head may start at.
    """

    def __init__(
        self, features: Floats, targets: Integers, classes: int, matching: Head | None
    ) -> None:
        views, photos, width = features.shape
        rows = features.reshape(views * photos, width)
        self.answers = np.tile(targets, views)
        self.mean, spread = rows.mean(axis=0), rows.std(axis=0)
        # Units that hardly ever fire would otherwise be blown up to the size of the others.
        self.spread = spread + 0.05 * rows.std() + 1e-6
        self.rows = ((rows - self.mean) / self.spread).astype(np.float32)
        nothing = Head(np.zeros((classes, width), np.float32), np.zeros(classes, np.float32))
        self.starts = {False: nothing, True: matching or nothing}
        self.offsets = {prior: start(rows) for prior, start in self.starts.items()}

    def fit(self, strength: Strength) -> Head:
        """Fit a head as :func:`fit_head` does."""
        start = self.starts[strength.prior]
        offsets = self.offsets[strength.prior]
        weight, bias = _descend(self.rows, self.answers, offsets, strength.penalty)
        weight = weight / self.spread
        return Head(
            (start.weight + weight).astype(np.float32),
            (start.bias + bias - weight @ self.mean).astype(np.float32),
        )


def _fires(features: Floats, prior: Prior) -> npt.NDArray[np.float64]:
    """Tell how much each of the network's own K classes fires on each photo, (N, K)."""
    views = [softmax(np.asarray(prior(view), np.float64)) for view in features]
    return np.asarray(np.mean(views, axis=0))


def _matching_rows(
    fires: npt.NDArray[np.float64], targets: Integers, classes: int, prior: Prior
) -> Head:
    """Take the row of the network's classifier that fires most on the photos of each class."""
    best = [int(fires[targets == index].mean(axis=0).argmax()) for index in range(classes)]
    return Head(prior.weight[best], prior.bias[best])


def _descend(
    rows: Floats, targets: Integers, offsets: Floats, penalty: float
) -> tuple[Floats, Floats]:
    """Minimise cross-entropy and penalty over a weight (C, F) and a bias (C,)."""
    (count, width), classes = rows.shape, offsets.shape[1]
    rows = rows.astype(np.float32)
    wanted = np.eye(classes, dtype=np.float32)[targets]

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        values = flat.astype(np.float32).reshape(classes, width + 1)
        weight, bias = values[:, :width], values[:, width]
        logits = offsets + rows @ weight.T + bias
        logits -= logits.max(axis=1, keepdims=True)
        powers = np.exp(logits)
        sums = powers.sum(axis=1, keepdims=True)
        nll = float((np.log(sums[:, 0]) - (wanted * logits).sum(axis=1)).mean(dtype=np.float64))
        slope = (powers / sums - wanted) / count  # (N, C)
        gradient = np.concatenate(
            [slope.T @ rows + penalty * weight, slope.sum(axis=0)[:, None]], axis=1
        )
        size = float((weight.astype(np.float64) ** 2).sum())
        return nll + penalty / 2 * size, gradient.astype(np.float64).ravel()

    start = np.zeros(classes * (width + 1))
    options = {"maxiter": 100, "ftol": 1e-7, "gtol": 1e-5}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    values = np.asarray(found.x, np.float32).reshape(classes, width + 1)
    return values[:, :width], values[:, width]


def cross_validate(
    features: Floats,
    targets: Integers,
    groups: Sequence[int],
    classes: int,
    strength: Strength,
    prior: Prior | None,
    *,
    seed: int = 42,
) -> Floats:
    """Give the logits of each photo by a head that was fitted without it.

    Parameters
    ----------
    groups : sequence of int
        Near-duplicates share a number, and are on one side of every fold.
    seed : int
        Seed of the folds.

    Returns
    -------
    numpy.ndarray
        float32, shape (N, C), of the first view.

    Raises
    ------
    DatasetError
        If a class has fewer than two different photos.
    """
    all_logits = _cross_validate(features, targets, groups, classes, (strength,), prior, seed)
    return np.asarray(all_logits[0])


def _cross_validate(
    features: Floats,
    targets: Integers,
    groups: Sequence[int],
    classes: int,
    grid: Sequence[Strength],
    prior: Prior | None,
    seed: int,
) -> Floats:
    """Do what :func:`cross_validate` does for several strengths, (S, N, C)."""
    folds = deal_folds(targets, groups, classes, seed)
    logits = np.zeros((len(grid), len(targets), classes), np.float32)
    with _one_thread():
        fires = None if prior is None else _fires(features, prior)
        for fold in range(int(folds.max()) + 1):
            out = folds == fold
            start = None
            if prior is not None and fires is not None:
                start = _matching_rows(fires[~out], targets[~out], classes, prior)
            rows = _Rows(features[:, ~out], targets[~out], classes, start)
            for index, strength in enumerate(grid):
                logits[index, out] = rows.fit(strength)(features[0, out])
    return logits


def choose(
    features: Floats,
    targets: Integers,
    groups: Sequence[int],
    classes: int,
    prior: Prior | None,
    *,
    grid: Sequence[Strength] = GRID,
    seed: int = 42,
) -> Choice:
    """Choose how to fit the head, by cross-validation.

    Of all whose errors are within a standard error of the fewest, the first in the grid is taken:
    the one that stays closest to what the network knew (the rule of one standard error, Breiman et
    al. 1984). A photo more or less is chance, and a head that keeps to what the network knew also
    tells better when it is shown something else.
    """
    grid = [strength for strength in grid if prior is not None or not strength.prior]
    kept = _cross_validate(features, targets, groups, classes, grid, prior, seed)
    tried = []
    for strength, logits in zip(grid, kept, strict=True):
        errors = int((logits.argmax(axis=1) != targets).sum())
        scaled = softmax(logits.astype(np.float64) / fit_temperature(logits, targets))
        nll = float(-np.log(np.maximum(scaled[np.arange(len(targets)), targets], 1e-12)).mean())
        tried.append((strength, errors, nll))
    fewest = min(errors for _, errors, _ in tried)
    allowed = fewest + max(1, round(fewest**0.5))
    best = next(index for index, (_, errors, _) in enumerate(tried) if errors <= allowed)
    return Choice(tried[best][0], kept[best], tuple(tried))
