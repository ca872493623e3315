"""Write export.pkl so that it opens anywhere and holds nothing of the machine it was made on."""

import csv
import hashlib
import io
import pickle
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from icon_classifier.errors import TrainingError
from icon_classifier.files import replacing, sha256_of, write_file

_PACKAGES = ("torch", "torchvision", "fastai", "timm", "onnxruntime", "pillow", "numpy")


def save_export(learn: Any, notes: dict[str, Any], path: str | Path) -> Path:
    """Export a Learner.

    Python's own pickle is used: fastai's default, cloudpickle, stores some functions as byte code
    together with paths of the machine.

    Parameters
    ----------
    learn : fastai.learner.Learner
        Its classes must all come from fastai, torch, torchvision and timm.
    notes : dict
        Builtins only; stored as ``learn.icon_classifier``.
    path : str or Path
        The file to write; the old one stays if that fails.

    Raises
    ------
    TrainingError
        If the Learner holds something of this program or of a notebook, or the folder cannot be
        written to.
    """
    target = Path(path).resolve()
    folders = learn.path, learn.dls.path
    learn.icon_classifier = {**notes, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    learn.path = learn.dls.path = Path()
    learn.model.cpu().eval()
    learn.dls.cpu()
    learn.zero_grad()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            learn.export(temporary, pickle_module=pickle)
    except (pickle.PicklingError, AttributeError) as error:
        raise TrainingError(f"this Learner cannot be exported: {error}") from error
    except OSError as error:
        raise TrainingError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        learn.path, learn.dls.path = folders
    return target


def versions() -> dict[str, str]:
    """Return the versions of the packages that a model depends on."""
    return {name: version(name) for name in _PACKAGES}


def describe_photos(paths: Sequence[Path], labels: Sequence[str]) -> dict[str, Any]:
    """Describe the photos that a model was trained on, without their names.

    Returns
    -------
    dict
        ``photos``, ``classes`` (label to count) and ``sha256`` over labels and contents, the same
        for the same photos in any order and under any name.
    """
    lines = sorted(f"{label} {sha256_of(path)}" for path, label in zip(paths, labels, strict=True))
    return {
        "photos": len(paths),
        "classes": dict(sorted(Counter(labels).items())),
        "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }


def write_classes(vocab: Sequence[str], path: str | Path) -> Path:
    """Write ``classes.csv``, a table of the index of each output and its label."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["index", "label"])
    writer.writerows(enumerate(vocab))
    return write_file(path, table.getvalue())
