"""What export.onnx says of itself: one JSON object in its metadata, read and checked here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from icon_classifier.errors import IconClassifierError, ModelDamagedError
from icon_classifier.model.pipeline import Pipeline

METADATA_KEY = "icon_classifier"
"""The one key of ours among the file's ``metadata_props``."""

FORMAT = 1
"""Version of the layout; a reader refuses what it does not know."""

_MOST_TEXT = 2**20
"""Characters of metadata: a thousand classes take a tenth of it."""


@dataclass(frozen=True)
class ModelInfo:
    """A typed view of the metadata.

    Attributes
    ----------
    labels : tuple of str
        Names of the classes, in the order of the outputs.
    pipeline : Pipeline
        The validation-time transforms of the Learner.
    mean, std : numpy.ndarray
        float32, shape (3,); statistics of normalisation for pixels of 0 to 1.
    temperature : float
        What the logits are divided by before the softmax; above 0.
    score : str or None
        Name of the score for "not sure"; None where the model never says so.
    threshold : float or None
        Photos below this score are not like those that the model was trained on.
    export_sha256 : str
        SHA-256 of the export.pkl that it was compiled from.
    date : str
        When it was compiled, ISO 8601, UTC.
    recipe : str or None
        Name of the recipe that it was trained by.
    versions : mapping of str to str
        Versions of the packages that took part.
    figures : mapping
        What was measured on validation photos.
    raw : mapping
        The whole object, also with what this version does not know.
    """

    labels: tuple[str, ...]
    pipeline: Pipeline
    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    temperature: float
    score: str | None
    threshold: float | None
    export_sha256: str
    date: str
    recipe: str | None
    versions: Mapping[str, str]
    figures: Mapping[str, Any]
    raw: Mapping[str, Any]

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """Read and check the metadata.

        Raises
        ------
        ModelDamagedError
            If something is missing or makes no sense; the message names it.
        """
        if len(text) > _MOST_TEXT:
            raise ModelDamagedError(f"expected metadata of at most {_MOST_TEXT} characters")
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelDamagedError(f"the model's metadata is no JSON: {error}") from error
        if not isinstance(raw, dict):
            raise ModelDamagedError(f"expected a JSON object as metadata, got {type(raw).__name__}")
        if raw.get("format") != FORMAT:
            raise ModelDamagedError(
                f"expected metadata of format {FORMAT}, got {raw.get('format')!r}; "
                "run 'icon-classifier convert'"
            )
        unsure = raw.get("unsure")
        try:
            return cls(
                labels=_labels(raw["labels"]),
                pipeline=Pipeline.from_json(raw["transforms"]),
                mean=_three(raw["mean"], "mean"),
                std=_three(raw["std"], "std", positive=True),
                temperature=_number(raw["temperature"], "temperature", positive=True),
                score=None if unsure is None else str(unsure["score"]),
                threshold=None if unsure is None else _number(unsure["threshold"], "threshold"),
                export_sha256=str(raw["export_sha256"]),
                date=str(raw.get("date", "")),
                recipe=raw.get("recipe"),
                versions=dict(raw.get("versions") or {}),
                figures=dict(raw.get("figures") or {}),
                raw=raw,
            )
        except KeyError as error:
            raise ModelDamagedError(f"the model's metadata lacks {error}") from error
        except ModelDamagedError:
            raise
        except (TypeError, ValueError, AttributeError, IconClassifierError) as error:
            raise ModelDamagedError(f"the model's metadata makes no sense: {error}") from error


def _labels(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise ModelDamagedError(f"expected labels as a list of names, got {value!r:.80}")
    if len(set(value)) != len(value):
        raise ModelDamagedError("expected labels that differ, got one twice")
    return tuple(value)


def _number(value: Any, name: str, *, positive: bool = False) -> float:
    # bool is an int to Python, never a number to us.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ModelDamagedError(f"expected {name} as a finite number, got {value!r:.80}")
    if positive and value <= 0:
        raise ModelDamagedError(f"expected {name} above 0, got {value}")
    return float(value)


def _three(value: Any, name: str, *, positive: bool = False) -> npt.NDArray[np.float32]:
    if not isinstance(value, list) or len(value) != 3:
        raise ModelDamagedError(f"expected {name} as three numbers, got {value!r:.80}")
    return np.array([_number(v, name, positive=positive) for v in value], np.float32)
