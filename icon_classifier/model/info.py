"""The metadata of export.onnx: one JSON object, read and checked here.

numpy and Pillow are imported by :class:`ModelInfo` alone: a server reads the labels of a model
without them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icon_classifier.errors import IconClassifierError, ModelDamagedError, ModelMissingError
from icon_classifier.files import sha256_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from icon_classifier.model.pipeline import Pipeline

METADATA_KEY = "icon_classifier"
"""Our only key among the file's ``metadata_props``."""

FORMAT = 1
"""Version of the layout; other versions are refused."""

MAX_METADATA_CHARACTERS = 2**20
"""A thousand classes take a tenth of it."""


@dataclass(frozen=True)
class ModelInfo:
    """A typed view of the metadata.

    Attributes
    ----------
    labels : tuple of str
        Names of the classes, in the order of the logits.
    mode : {'RGB', 'L'}
        Mode of the pictures that the pipeline takes; L is grey.
    pipeline : Pipeline
        The validation-time transforms of the Learner.
    mean, std : numpy.ndarray
        float32, shape (K,); statistics of normalisation for pixels of 0 to 1. K is the number of
        channels of the input: 3, or 1 for grey pictures.
    temperature : float
        The logits are divided by it before the softmax; above 0.
    score : str or None
        Name of the score that decides "not sure"; None for a model that is always sure.
    threshold : float or None
        The model is "not sure" of photos with a lower score.
    export_sha256 : str
        SHA-256 of the export.pkl that it was converted from.
    date : str
        When it was converted, ISO 8601, UTC.
    recipe : str or None
        Name of the recipe that it was trained with.
    versions : mapping of str to str
        Versions of the packages that it was converted with.
    figures : mapping
        Measurements on validation photos.
    raw : mapping
        The whole object, including entries that this version does not know.
    """

    labels: tuple[str, ...]
    mode: str
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
        """Parse and check the metadata.

        Raises
        ------
        ModelDamagedError
            If an entry is missing or invalid; the message names it.
        """
        from icon_classifier.model.pipeline import Pipeline

        raw = _parse(text)
        unsure, mode = raw.get("unsure"), raw.get("mode", "RGB")
        try:
            return cls(
                labels=_labels(raw["labels"]),
                mode=_mode(mode),
                pipeline=Pipeline.from_json(raw["transforms"]),
                mean=_channels(raw["mean"], "mean", mode),
                std=_channels(raw["std"], "std", mode, positive=True),
                temperature=_number(raw["temperature"], "temperature", positive=True),
                score=None if unsure is None else str(unsure["score"]),
                threshold=None if unsure is None else _number(unsure["threshold"], "threshold"),
                export_sha256=str(raw["export_sha256"]),
                date=str(raw.get("date", "")),
                recipe=None if raw.get("recipe") is None else str(raw["recipe"]),
                versions=dict(raw.get("versions") or {}),
                figures=dict(raw.get("figures") or {}),
                raw=raw,
            )
        except KeyError as error:
            raise ModelDamagedError(f"the model's metadata lacks {error}") from error
        except ModelDamagedError:
            raise
        except (
            *(TypeError, ValueError, AttributeError, IconClassifierError),
            *(OverflowError, RecursionError),  # numbers of 400 digits, lists 900 deep
        ) as error:
            raise ModelDamagedError(f"the model's metadata is invalid: {error}") from error


def read_model_file(path: str | Path) -> bytes:
    """Read the bytes of an export.onnx.

    Raises
    ------
    ModelMissingError
        If there is no such file.
    ModelDamagedError
        If it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ModelMissingError(f"there is no {path}") from error
    except OSError as error:
        raise ModelDamagedError(f"cannot read {path}: {error}") from error


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata of an export.onnx without ONNX Runtime.

    Returns
    -------
    dict
        The whole object; its entries are not checked, see :class:`ModelInfo`.

    Raises
    ------
    ModelMissingError
        If there is no such file.
    ModelDamagedError
        If it cannot be read or has no metadata of this format.
    """
    data = read_model_file(path)
    # An entry of protobuf: field 1, the key after its length; field 2, the value after its length.
    key = METADATA_KEY.encode()
    mark = bytes([0x0A, len(key)]) + key + b"\x12"
    start = data.rfind(mark)
    if start < 0:
        raise ModelDamagedError(f"{path} has no entry {METADATA_KEY!r} in its metadata")
    start, length = start + len(mark), 0
    for shift, byte in enumerate(data[start : start + 5]):  # seven bits a byte, the lowest first
        length |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            start += shift + 1
            break
    return _parse(data[start : start + length].decode("utf-8", "replace"))


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Read the labels of an export.onnx without ONNX Runtime; see :func:`read_metadata`."""
    return _labels(read_metadata(path).get("labels"))


@functools.cache
def compiler_sha256() -> str:
    """Hash the code that a converted model depends on: ``compact``, ``conversion`` and ``model``.

    Returns
    -------
    str
        SHA-256 over names and contents, 64 hexadecimal digits; computed once per process.
    """
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for folder in ("compact", "conversion", "model"):
        for path in sorted((package / folder).rglob("*.py")):
            name = path.relative_to(package).as_posix()
            digest.update(f"{name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _parse(text: str) -> dict[str, Any]:
    """Parse the metadata; check only its size and its format."""
    if len(text) > MAX_METADATA_CHARACTERS:
        raise ModelDamagedError(
            f"expected at most {MAX_METADATA_CHARACTERS} characters, got {len(text)}"
        )
    try:
        raw = json.loads(text)
        json.dumps(raw, ensure_ascii=False).encode()  # fails for half a surrogate pair
    except (ValueError, RecursionError) as error:
        raise ModelDamagedError(f"the model's metadata is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ModelDamagedError(f"expected a JSON object as metadata, got {type(raw).__name__}")
    if raw.get("format") != FORMAT:
        raise ModelDamagedError(
            f"expected metadata of format {FORMAT}, got {raw.get('format')!r}; "
            "run 'icon-classifier convert'"
        )
    return raw


def _labels(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise ModelDamagedError("expected labels as a list of names, got something else")
    if len(set(value)) != len(value):
        raise ModelDamagedError("expected different labels, got one twice")
    return tuple(value)


def _number(value: Any, name: str, *, positive: bool = False) -> float:
    # Python's bool is an int, but true is not a number here.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ModelDamagedError(f"expected {name} as a finite number, got {value!r}")
    if positive and value <= 0:
        raise ModelDamagedError(f"expected {name} above 0, got {value}")
    return float(value)


def _mode(value: Any) -> str:
    if value not in ("RGB", "L"):
        raise ModelDamagedError(f"expected the mode RGB or L, got {value!r}")
    return str(value)


def _channels(
    value: Any, name: str, mode: str, *, positive: bool = False
) -> npt.NDArray[np.float32]:
    # Grey pictures make an input of three equal channels where three statistics are given.
    if not isinstance(value, list) or len(value) not in ((3,) if mode == "RGB" else (1, 3)):
        raise ModelDamagedError(f"expected {name} as a number a channel, got {value!r}")
    import numpy as np

    return np.array([_number(v, name, positive=positive) for v in value], np.float32)
