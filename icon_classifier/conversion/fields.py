"""Read attributes and items of the objects of a parsed pickle."""

import struct
from pathlib import PurePosixPath
from typing import Any

from icon_classifier.conversion.unpickler import MAX_NAME, Global, Object, shorten
from icon_classifier.errors import UnsupportedLearnerError

_AS_MADE = "call learn.export() on the Learner as fastai made it"


def unsupported(reason: str) -> UnsupportedLearnerError:
    """Return the error for a Learner that cannot be converted, with the reason."""
    return UnsupportedLearnerError(f"this Learner cannot be converted: {reason}")


def get_attribute(value: Any, name: str) -> Any:
    """Return an attribute of an object.

    Raises
    ------
    UnsupportedLearnerError
        It is not an object, or has no such attribute, or None.
    """
    if not isinstance(value, Object) or (attribute := value.get(name)) is None:
        raise unsupported(f"expected an attribute {name!r}, got {shorten(value)}; {_AS_MADE}")
    return attribute


MAX_ITEMS = 200
"""Most members of each list of transforms, callbacks, metrics and the like, which has 20."""


def get_items(value: Any, most: float = MAX_ITEMS) -> list[Any]:
    """Return the members of a list or of fastcore's L.

    Raises
    ------
    UnsupportedLearnerError
        It is neither, or has more members than `most`.
    """
    items = value.get("items") if isinstance(value, Object) else value
    if isinstance(items, Object):  # a CategoryMap keeps its members in an L
        items = items.get("items")
    if not isinstance(items, list):
        raise unsupported(f"expected a list, got {shorten(value)}; {_AS_MADE}")
    if len(items) > most:
        raise unsupported(f"expected lists of at most {most} members, got {shorten(items)}")
    return items


def class_name(value: Any) -> str:
    """Return the name of a class or function, or of an object's class; fastai's without module."""
    match value:
        case Object(call=Global("functools", "partial"), state=(function, *_)):
            value = function  # Python makes no partial of a partial
    match value:
        case Object(Global("builtins", "MethodType"), (function, *_)):
            value = function
    match value:
        case Object(Global(name="getattr"), (Global() | Object() as owner, str(name))):
            owner_name = str(owner) if isinstance(owner, Global) else owner.cls
            name = f"{owner_name.rpartition('.')[0]}.{name[:MAX_NAME]}"
        case Object(state=(_, {"__name__": str(name)} as attributes)):
            module = str(attributes.get("__module__") or "__main__")  # a function stored by value
            name = f"{module[:MAX_NAME]}.{name[:MAX_NAME]}"
        case Object(Global(name="_create_function"), (_, Global(module, scope), str(name), *_)):
            # A function that dill stored by value: its scope is the __dict__ of its module.
            name = f"{'__main__' if scope == '__main__' else module}.{name[:MAX_NAME]}"
        case Object(Global(_, "_make_skeleton_class" | "_create_type"), (_, str(name), *_)):
            name = f"__main__.{name[:MAX_NAME]}"  # a class stored by value
        case Object():
            name = value.cls
        case Global():
            name = str(value)
        case _:
            return shorten(value)
    known = ("fastai.", "fastai2.", "fastcore.", "fasttransform.", "torch.nn.")
    return name.rsplit(".", 1)[-1] if name.startswith(known) else name


def describe(value: Any) -> str:
    """Return the name of a class, function or object for people, with where it comes from."""
    name = class_name(value)
    package, dot, rest = name.partition(".")
    if not dot or isinstance(value, str):
        return name
    return f"{rest.rsplit('.', 1)[-1]} of {package.replace('__main__', 'the notebook')}"


def is_own(value: Any) -> bool:
    """Return whether the notebook defines a class or function, or an object's class."""
    return class_name(value).startswith("__main__.")


_NUMPY = {
    **{"b1": "<?", "f2": "<e", "f4": "<f", "f8": "<d", "i1": "<b", "i2": "<h", "i4": "<i"},
    **{"i8": "<q", "u1": "<B", "u2": "<H", "u4": "<I", "u8": "<Q"},
}
"""The formats of struct for numpy's dtypes."""


def plain(value: Any) -> Any:
    """Return a string or number, also that of an enum member, a numpy scalar or a path.

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
        if isinstance(kind, str) and isinstance(raw, bytes):
            if kind.startswith("U"):
                return raw.decode("utf-32-le").rstrip("\0")
            if kind in _NUMPY:
                return struct.unpack(_NUMPY[kind], raw)[0]
    is_path = isinstance(value, Object) and value.cls.endswith(("PosixPath", "WindowsPath"))
    if is_path and sum(map(len, value.args)) <= MAX_NAME:  # many parts may be one long text
        return str(PurePosixPath(*value.args))
    raise unsupported(f"expected a string or a number, got {shorten(value)}")
