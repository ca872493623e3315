"""A linear probe: logistic regression on the features of a pretrained network, with a prior.

The network was trained on a thousand classes, and its last layer holds a weight vector for each.
For every class of ours the probe starts at the row of that layer that responds most to our photos,
and learns only what has to change; cross-validation chooses how far it may go, and whether the
prior helps at all (for pictures unlike any photo it does not).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from icon_classifier.dataset.splits import assign_folds
from icon_classifier.model.session import softmax
from icon_classifier.training.evaluation import mean_recall

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


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
        L2 penalty on the difference from the start, for standardised features.
    balanced : bool
        Give each class the same weight in the loss, however few its photos are.
    """

    prior: bool
    penalty: float
    balanced: bool = False


GRID = (
    *(Strength(True, penalty) for penalty in (10.0, 1.0, 0.1, 0.03)),
    *(Strength(False, penalty) for penalty in (3.0, 1.0, 0.3, 0.1, 0.03)),
)
"""What `choose` tries, from the strongest regularisation to the weakest."""

UNBALANCED = 3
"""`choose` tries balanced heads too where the most common class has at least this many times the
photos of the rarest."""


@dataclass(frozen=True)
class Choice:
    """What cross-validation chose.

    Attributes
    ----------
    strength : Strength
        How to fit the head.
    logits : numpy.ndarray
        float32, shape (N, C): of each photo by a head that was fitted without it.
    balanced_errors : float
        How many of them are wrong; see :func:`balanced_errors`.
    """

    strength: Strength
    logits: Floats
    balanced_errors: float


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
        How far to go from the start.
    prior : Head or None
        The network's own classifier; None if it has none for these features.
    """
    with threadpool_limits(1, "blas"):  # on small matrices, several only wait for each other
        start = None
        if strength.prior and prior is not None:
            start = _matching_rows(_responses(features, prior), targets, classes, prior)
        return _Fitter(features, targets, classes, start).fit(strength)


class _Fitter:
    """Fits heads of several strengths to the same photos, which are standardised once.

    Parameters
    ----------
    features, targets, classes
        See :func:`fit_head`.
    start : Head or None
        The rows of the network's own classifier that a head may start at.
    """

    def __init__(
        self, features: Floats, targets: Integers, classes: int, start: Head | None
    ) -> None:
        views, photos, width = features.shape
        rows = features.reshape(views * photos, width)
        self.targets = np.tile(targets, views)
        self.mean, spread = rows.mean(axis=0), rows.std(axis=0)
        # Features that are almost always 0 would otherwise be scaled up to the size of the others.
        self.spread = spread + 0.05 * rows.std() + 1e-6
        self.rows = ((rows - self.mean) / self.spread).astype(np.float32)
        zero = Head(np.zeros((classes, width), np.float32), np.zeros(classes, np.float32))
        self.starts = {False: zero, True: start or zero}
        self.offsets = {prior: head(rows) for prior, head in self.starts.items()}

    def fit(self, strength: Strength) -> Head:
        """Fit a head as :func:`fit_head` does."""
        start = self.starts[strength.prior]
        offsets = self.offsets[strength.prior]
        counts = np.bincount(self.targets, minlength=offsets.shape[1])
        of_class = (
            1 / (len(counts) * counts)
            if strength.balanced
            else 1 / np.full(len(counts), len(self.targets))
        )
        shares = of_class.astype(np.float32)[self.targets]
        weight, bias = _minimize_loss(self.rows, self.targets, offsets, shares, strength.penalty)
        weight = weight / self.spread
        return Head(
            (start.weight + weight).astype(np.float32),
            (start.bias + bias - weight @ self.mean).astype(np.float32),
        )


def _responses(features: Floats, prior: Prior) -> npt.NDArray[np.float64]:
    """Return the probabilities of the network's own K classes for each photo, (N, K)."""
    views = [softmax(np.asarray(prior(view), np.float64)) for view in features]
    return np.asarray(np.mean(views, axis=0))


def _matching_rows(
    responses: npt.NDArray[np.float64], targets: Integers, classes: int, prior: Prior
) -> Head:
    """Return the rows of the network's classifier that respond most to the photos of each class."""
    best = [int(responses[targets == index].mean(axis=0).argmax()) for index in range(classes)]
    return Head(prior.weight[best], prior.bias[best])


def _minimize_loss(
    rows: Floats, targets: Integers, offsets: Floats, shares: Floats, penalty: float
) -> tuple[Floats, Floats]:
    """Minimise cross-entropy and penalty over a weight (C, F) and a bias (C,).

    `shares`, shape (N,), is the part of each row in the cross-entropy; they add up to 1.
    """
    width, classes = rows.shape[1], offsets.shape[1]
    one_hot = np.eye(classes, dtype=np.float32)[targets]

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        values = flat.astype(np.float32).reshape(classes, width + 1)
        weight, bias = values[:, :width], values[:, width]
        logits = offsets + rows @ weight.T + bias
        logits -= logits.max(axis=1, keepdims=True)
        powers = np.exp(logits)
        sums = powers.sum(axis=1, keepdims=True)
        nll = float(shares @ (np.log(sums[:, 0]) - (one_hot * logits).sum(axis=1)))
        slope = (powers / sums - one_hot) * shares[:, None]  # (N, C)
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
    strengths: Sequence[Strength],
    prior: Prior | None,
    *,
    seed: int = 42,
) -> Floats:
    """Compute the logits of each photo by heads that were fitted without it.

    Parameters
    ----------
    groups : sequence of int
        Near-duplicates share a number, and are on one side of every fold.
    strengths : sequence of Strength
        S ways to fit the head.
    seed : int
        Seed of the folds.

    Returns
    -------
    numpy.ndarray
        float32, shape (S, N, C), of the first view.

    Raises
    ------
    DatasetError
        If a class has fewer than two different photos.
    """
    folds = assign_folds(targets, groups, classes, seed)
    logits = np.zeros((len(strengths), len(targets), classes), np.float32)
    with threadpool_limits(1, "blas"):
        responses = None if prior is None else _responses(features, prior)
        for fold in range(int(folds.max()) + 1):
            out = folds == fold
            start = None
            if prior is not None and responses is not None:
                start = _matching_rows(responses[~out], targets[~out], classes, prior)
            fitter = _Fitter(features[:, ~out], targets[~out], classes, start)
            for index, strength in enumerate(strengths):
                logits[index, out] = fitter.fit(strength)(features[0, out])
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
    """Choose how to fit the head, by cross-validation: that of the greatest mean recall.

    Of equals it is the first of `grid`, which stays closest to what the network knew.
    """
    strengths = [strength for strength in grid if prior is not None or not strength.prior]
    counts = np.bincount(targets, minlength=classes)
    if counts.max() >= UNBALANCED * counts.min():
        strengths += [replace(strength, balanced=True) for strength in strengths]
    logits = cross_validate(features, targets, groups, classes, strengths, prior, seed=seed)
    errors = [balanced_errors(each.argmax(axis=1), targets) for each in logits]
    best = int(np.argmin(errors))
    return Choice(strengths[best], logits[best], errors[best])


def balanced_errors(predicted: Integers, targets: Integers) -> float:
    """Return how many photos are wrong, with the photos of all classes counted alike.

    N * (1 - mean recall): the number of errors where each class has as many photos.
    """
    return round(len(targets) * (1 - mean_recall(predicted, targets)), 6)
