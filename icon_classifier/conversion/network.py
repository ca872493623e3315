"""Build the network of an exported Learner from its records: layers and numbers, nothing else.

Only subclasses of ``torch.nn.Module`` are made, of classes that torch, torchvision, timm and fastai
define themselves, and only by giving an empty instance its attributes; no constructor runs. What a
layer holds beside layers, tensors and plain values becomes a :class:`Missing`, which complains as
soon as the forward pass uses it.
"""

import functools
import importlib
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
from torch import nn

from icon_classifier.conversion.allowlist import is_defined
from icon_classifier.conversion.archive import Archive
from icon_classifier.conversion.torch_setup import import_fastai, mend_torchvision
from icon_classifier.conversion.unpickler import Global, Object, Storage
from icon_classifier.errors import ConversionError, UnsupportedLearnerError

LAYERS = re.compile(
    r"(torch\.nn\.modules|torchvision\.(models|ops)|timm\.(models|layers)|fastai\.vision\.models)"
    r"\.[\w.]+|fastai\.layers|fastai\.torch_core|fastai\.vision\.learner"
)
"""Modules whose layers may be built."""

FUNCTIONS = re.compile(r"torch\.nn\.functional")

STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


class AdaptiveConcatPool2d(nn.Module):
    """Twin of fastai's layer of that name: maximum and mean of each map, one after the other.

    The twins spare a conversion the import of fastai, which takes longer than all the rest.
    """

    ap: nn.Module
    mp: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool maps, (N, K, H, W) -> (N, 2 K, 1, 1)."""
        return torch.cat([self.mp(x), self.ap(x)], 1)


class Flatten(nn.Module):
    """Twin of fastai's layer of that name."""

    full: bool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Flatten, (N, ...) -> (N, K)."""
        return x.reshape(-1) if self.full else x.flatten(1)


class TimmBody(nn.Module):
    """Twin of fastai's wrapper of a timm model without its head."""

    needs_pool: bool
    model: Any

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the features of photos, (N, 3, H, W) -> (N, K, h, w), or (N, K) if pooled."""
        result: torch.Tensor = self.model.forward_features(x) if self.needs_pool else self.model(x)
        return result


TWINS: dict[tuple[str, str], type[nn.Module]] = {
    ("fastai.layers", "AdaptiveConcatPool2d"): AdaptiveConcatPool2d,
    ("fastai.layers", "Flatten"): Flatten,
    ("fastai.vision.learner", "TimmBody"): TimmBody,
}


class Missing:
    """Stands for what was not built; whoever uses it is told what it is.

    Parameters
    ----------
    what : str
        Name of the class or function.
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, *_: object, **__: object) -> Any:
        """Refuse to act."""
        raise UnsupportedLearnerError(
            f"the network needs {self.what}, which is not a layer of torch, torchvision, timm or "
            "fastai",
            words=f"This export.pkl needs {self.what}, which the page does not know.",
        )


def build_network(record: Object, archive: Archive) -> nn.Module:
    """Build a network in evaluation mode, on the CPU, in float32.

    Raises
    ------
    UnsupportedLearnerError
        It is not made of layers of torch, torchvision, timm and fastai.
    ConversionError
        Numbers are missing or damaged.
    """
    try:
        with archive.numbers() as read:
            network = _Builder(read).build(record)
        if isinstance(network, nn.Module):
            return network.float().eval().requires_grad_(False)
    except (RuntimeError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ConversionError(f"{archive.path}: the network is damaged ({error})") from error
    raise UnsupportedLearnerError(
        f"the model is {record.cls}, not a network of torch, torchvision, timm or fastai",
        words=f"This export.pkl holds {record.cls}, which the page does not know.",
    )


class _Builder:
    """Builds one network; what is shared in the records is shared in the network."""

    def __init__(self, read: Callable[[str, int], bytes]) -> None:
        self.read = read
        self.made: dict[int, Any] = {}
        self.storages: dict[str, torch.Tensor] = {}

    def build(self, value: Any) -> Any:
        """Build what a record stands for."""
        if isinstance(value, (str, bytes, int, float, complex)) or value is None:
            return value
        if id(value) in self.made:
            return self.made[id(value)]
        if isinstance(value, Global):
            return _resolve(value)
        if isinstance(value, Object):
            return self.build_object(value)
        if isinstance(value, (tuple, set, frozenset)):
            return type(value)(self.build(member) for member in value)
        if isinstance(value, list):
            members: list[Any] = []
            self.made[id(value)] = members
            members += [self.build(member) for member in value]
            return members
        if isinstance(value, dict):
            table: dict[Any, Any] = OrderedDict() if isinstance(value, OrderedDict) else {}
            self.made[id(value)] = table
            for key, member in value.items():
                table[self.build(key)] = self.build(member)
            return table
        return Missing(repr(value))

    def build_object(self, record: Object) -> Any:
        """Build what a record of a call stands for."""
        made = self.special(record)
        if made is None:
            cls = _resolve(record.call) if isinstance(record.call, Global) else None
            if isinstance(cls, type) and issubclass(cls, nn.Module):
                if not isinstance(record.state, dict):
                    raise TypeError(f"{record.cls} has no attributes")
                made = object.__new__(cls)
                self.made[id(record)] = made  # before its parts, which may refer to it
                made.__setstate__(self.build(record.state))  # type: ignore[no-untyped-call]
                for layer in made._modules.values():
                    if isinstance(layer, Missing):
                        layer()  # complains
            elif isinstance(cls, type) and issubclass(cls, Enum):
                made = cls(*record.args)
            else:
                made = Missing(record.cls)
        self.made[id(record)] = made
        return made

    def special(self, record: Object) -> Any:
        """Build tensors and a few kinds of values; None if it is none of these."""
        match record.cls, record.args:
            case "torch._utils._rebuild_tensor_v2", (
                Storage() as storage,
                offset,
                size,
                stride,
                *_,
            ):
                return self.tensor(storage, offset, size, stride)
            case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", (
                data,
                *_,
            ):
                tensor = self.build(data)
                if isinstance(tensor, torch.Tensor):
                    return nn.Parameter(tensor, requires_grad=False)
            case "torch._tensor._rebuild_from_type_v2", (call, _, args, *_):
                return self.build(Object(call, args))
            case "torch.Size", (size,):
                return torch.Size(size)
            case "torch.device", _:
                return torch.device("cpu")
            case "functools.partial", _:
                return self.partial(record)
        return None

    def partial(self, record: Object) -> Any:
        """Build a partial of a layer's class or of a function of torch.nn.functional."""
        match record.state:
            case (call, tuple() as args, dict() as kwargs, _):
                function = self.build(call)
                if callable(function):
                    return functools.partial(function, *self.build(args), **self.build(kwargs))
        return Missing(record.cls)

    def tensor(self, storage: Storage, offset: int, size: Any, stride: Any) -> torch.Tensor:
        """Build a view of a storage; `as_strided` checks that it lies inside."""
        if storage.key not in self.storages:
            dtype = STORAGES[storage.kind]
            nbytes = storage.numel * dtype.itemsize
            raw = bytearray(self.read(storage.key, nbytes))
            self.storages[storage.key] = (
                torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
            )
        flat = self.storages[storage.key]
        return flat.as_strided(tuple(size), tuple(stride), offset).contiguous()


def _resolve(name: Global) -> Any:
    """Find a layer's class, an enum, a dtype or a function of torch.nn.functional."""
    twin = TWINS.get((name.module, name.name))
    if twin is not None:
        return twin
    if name.module == "torch" and isinstance(getattr(torch, name.name, None), torch.dtype):
        return getattr(torch, name.name)
    is_layer = LAYERS.fullmatch(name.module)
    known = is_layer or FUNCTIONS.fullmatch(name.module)
    if not known or not is_defined(name.module, name.name):
        return Missing(str(name))
    found = getattr(_import(name.module), name.name, None)
    if not is_layer:
        return found
    if not isinstance(found, type) or (found.__module__, found.__qualname__) != (
        name.module,
        name.name,
    ):
        return Missing(str(name))
    if issubclass(found, Enum):
        return found
    # These two compile the text they are given.
    compiles = issubclass(found, (torch.fx.GraphModule, torch.jit.ScriptModule))
    return found if issubclass(found, nn.Module) and not compiles else Missing(str(name))


def _import(module: str) -> Any:
    if module not in sys.modules:
        if module.startswith("fastai."):
            import_fastai()
        else:
            mend_torchvision()
    return importlib.import_module(module)
