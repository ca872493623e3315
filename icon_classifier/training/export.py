"""Write export.pkl so that it opens anywhere and tells nothing of the machine it was made on."""

import csv
import hashlib
import math
import os
import pickle
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from icon_classifier.errors import TrainingError

_PACKAGES = ("torch", "torchvision", "fastai", "timm", "onnxruntime", "pillow", "numpy")


def save_export(learn: Any, notes: dict[str, Any], path: str | Path) -> Path:
    """Export a Learner, and record its SHA-256 beside it.

    Python's own pickle is used: fastai's default, cloudpickle, stores some functions as byte code
    together with the paths of the machine.

    Parameters
    ----------
    learn : fastai.learner.Learner
        Whose classes all come from fastai, torch, torchvision and timm.
    notes : dict
        Builtins only; kept as ``learn.icon_classifier``.
    path : str or Path
        The file to write, at once or not at all.

    Raises
    ------
    TrainingError
        If the Learner holds something of this program or of a notebook, or the folder cannot be
        written to.
    """
    target = Path(path).resolve()
    beside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    places = learn.path, learn.dls.path
    learn.icon_classifier = {**notes, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    learn.path = learn.dls.path = Path()
    learn.model.cpu().eval()
    learn.dls.cpu()
    learn.zero_grad()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        learn.export(beside, pickle_module=pickle)
        digest = hashlib.sha256(beside.read_bytes()).hexdigest()
        beside.replace(target)
        record = target.with_name(f"{target.name}.sha256")
        beside.write_text(f"{digest}  {target.name}\n", encoding="ascii")
        beside.replace(record)
    except (pickle.PicklingError, AttributeError) as error:
        raise TrainingError(f"this Learner cannot be exported: {error}") from error
    except OSError as error:
        raise TrainingError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)
        learn.path, learn.dls.path = places
    return target


def versions() -> dict[str, str]:
    """Versions of the packages that a model depends on."""
    return {name: version(name) for name in _PACKAGES}


def fingerprint(paths: Sequence[Path], labels: Sequence[str]) -> dict[str, Any]:
    """Tell which photos a model was trained on, without their names.

    Returns
    -------
    dict
        ``photos``, ``classes`` (label to count) and ``sha256`` over labels and contents, the same
        for the same photos in any order and under any name.
    """
    lines = sorted(
        f"{label} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path, label in zip(paths, labels, strict=True)
    )
    return {
        "photos": len(paths),
        "classes": dict(sorted(Counter(labels).items())),
        "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }


def write_classes(vocab: Sequence[str], path: str | Path) -> Path:
    """Write the labels as a table, ``classes.csv``: the index of each output and its label."""
    path = Path(path)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "label"])
        writer.writerows(enumerate(vocab))
    return path


def cautious_threshold(scores: Sequence[float], accept: float = 0.97, sure: float = 0.95) -> float:
    """Choose the score below which a photo is "not sure", with room for chance.

    The quantile of a few hundred scores is itself uncertain. This is the greatest of the scores
    that at least `accept` of all photos like these exceed, with a confidence of `sure` (a
    one-sided tolerance limit, Wilks 1941); the least score where there are too few to say.
    """
    ranked = sorted(float(score) for score in scores)
    if not ranked or not all(map(math.isfinite, ranked)):
        raise TrainingError("expected finite scores")
    count, chance, index = len(ranked), 0.0, 0
    # The index-th least score is low enough if fewer than index photos in count fall below the
    # quantile only by a chance of 1 - sure.
    for below in range(count):
        # Binomial probabilities by logarithms: the coefficients outgrow a float.
        ways = math.lgamma(count + 1) - math.lgamma(below + 1) - math.lgamma(count - below + 1)
        share = below * math.log1p(-accept) + (count - below) * math.log(accept)
        chance += math.exp(ways + share)
        if chance > 1 - sure:
            break
        index = below + 1
    return ranked[max(index - 1, 0)]
