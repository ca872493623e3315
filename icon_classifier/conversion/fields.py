"""Read attributes and items of the objects of a parsed pickle."""

import struct
from typing import Any

from icon_classifier.conversion.unpickler import Object
from icon_classifier.errors import UnsupportedLearnerError


def unsupported(reason: str) -> UnsupportedLearnerError:
    """Return the error for a Learner that cannot be compiled, with the reason."""
    return UnsupportedLearnerError(f"this Learner cannot be compiled: {reason}")


def get_attribute(value: Any, name: str) -> Any:
    """Return an attribute of an object.

    Raises
    ------
    UnsupportedLearnerError
        It is not an object, or has no such attribute, or None.
    """
    if not isinstance(value, Object) or (attribute := value.get(name)) is None:
        raise unsupported(f"expected an attribute {name!r}, got {value!r:.80}")
    return attribute


def get_items(value: Any) -> list[Any]:
    """Return the members of a list or of fastcore's L.

    Raises
    ------
    UnsupportedLearnerError
        It is neither.
    """
    items = value.get("items") if isinstance(value, Object) else value
    if isinstance(items, Object):  # a CategoryMap keeps its members in an L
        items = items.get("items")
    if not isinstance(items, list):
        raise unsupported(f"expected a list, got {value!r:.80}")
    return items


def class_name(value: Any) -> str:
    """Return the name of an object's class: without its module, if fastai defines it."""
    if not isinstance(value, Object):
        return f"{value!r:.80}"
    known = ("fastai.", "fasttransform.", "fastcore.", "torch.nn.modules.loss.")
    return value.cls.rsplit(".", 1)[-1] if value.cls.startswith(known) else value.cls


_NUMPY = {"b1": "<?", "u1": "<B", "i4": "<i", "i8": "<q", "f4": "<f", "f8": "<d"}
"""The formats of struct for numpy's dtypes."""


def plain(value: Any) -> Any:
    """Return a string or number, also that of an enum member or a numpy scalar.

    Raises
    ------
    UnsupportedLearnerError
        It is none of these.
    """
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Object) and value.cls == "PIL.Image.Resampling":
        return value.args[0]
    if isinstance(value, Object) and value.cls.endswith("multiarray.scalar"):
        dtype, raw = value.args
        kind = dtype.args[0] if isinstance(dtype, Object) and dtype.args else None
        if kind in _NUMPY and isinstance(raw, bytes):
            return struct.unpack(_NUMPY[kind], raw)[0]
    raise unsupported(f"expected a string or a number, got {value!r:.80}")
