"""Build the network of an exported Learner from its parsed pickle: layers and tensors only.

Only subclasses of ``torch.nn.Module`` that torch, torchvision, timm or fastai define are
instantiated, and only by setting the attributes of an empty instance. No constructor runs but
today's of timm, for a network of an older one. Any other value in a layer becomes a
:class:`Placeholder`, which raises if the forward pass calls it.
"""

import functools
import importlib
import math
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
from torch import nn

from icon_classifier.conversion.archive import Archive
from icon_classifier.conversion.fields import MAX_ITEMS, class_name, describe
from icon_classifier.conversion.older_layers import complete, find_layer, rebuild
from icon_classifier.conversion.unpickler import Global, Object, Storage, shorten
from icon_classifier.errors import ConversionError, UnsupportedLearnerError
from icon_classifier.system.torch_setup import import_fastai, mend_torchvision

LAYER_MODULES = re.compile(
    r"(torch\.nn\.modules|torchvision\.(models|ops)|timm\.(models|layers))\.[\w.]+"
    r"|fastai\.vision\.models\.xresnet|fastai\.layers|fastai\.torch_core|fastai\.vision\.learner"
)
"""Modules whose layers may be instantiated."""

WRAPPERS = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
}
"""Layers that only pass on the input of the layer they hold, and its name in them."""

WEIGHT_HOOKS = (
    ("torch.nn.utils.spectral_norm", "SpectralNorm"),
    ("torch.nn.utils.weight_norm", "WeightNorm"),
)
"""Hooks that compute the weight of a layer from the parameters that are trained."""

FUNCTION_MODULES = re.compile(r"torch\.nn\.functional")

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

MAX_LAYERS = 100_000
"""Most layers of a network, one that is in several places counted in each; a large one has 2,000.
Two in each of 60 that hold both of the next two are 2**60."""

MAX_DIMENSIONS = 8
"""Most dimensions of a tensor."""

MAX_VIEWS = 4
"""How often the elements of a storage may be used in tensors; mostly they are used once."""


class AdaptiveConcatPool2d(nn.Module):
    """The same as fastai's layer of that name: maximum and mean of each map.

    This and the next two are here because importing fastai takes longer than all of the rest.
    """

    ap: nn.Module
    mp: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool maps, (N, K, H, W) -> (N, 2 K, 1, 1)."""
        return torch.cat([self.mp(x), self.ap(x)], 1)


class Flatten(nn.Module):
    """The same as fastai's layer of that name."""

    full: bool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Flatten, (N, ...) -> (N, K)."""
        return x.reshape(-1) if self.full else x.flatten(1)


class TimmBody(nn.Module):
    """The same as fastai's wrapper of a timm model without its head."""

    needs_pool: bool
    model: Any

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the features of photos, (N, K, H, W) -> (N, F, h, w), or (N, F) if pooled."""
        result: torch.Tensor = self.model.forward_features(x) if self.needs_pool else self.model(x)
        return result


class OldLayerNorm2d(nn.LayerNorm):
    """The same as timm's layer before 0.6, whose variance depends on the layout of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise over channels, (N, K, H, W) -> (N, K, H, W)."""
        if x.is_contiguous():
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        variance, mean = torch.var_mean(x, dim=1, keepdim=True)  # unbiased
        x = (x - mean) * torch.rsqrt(variance + self.eps)
        return x * self.weight[:, None, None] + self.bias[:, None, None]


REPLACEMENTS: dict[tuple[str, str], type[nn.Module]] = {
    ("fastai.layers", "AdaptiveConcatPool2d"): AdaptiveConcatPool2d,
    ("fastai.layers", "Flatten"): Flatten,
    ("fastai.vision.learner", "TimmBody"): TimmBody,
    ("timm.models.convnext", "LayerNorm2d"): OldLayerNorm2d,  # since 0.6 in another module
}


class Placeholder:
    """A value that is not built; raises an error that names it when it is called.

    Parameters
    ----------
    name : str
        Name of the class or function.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *_: object, **__: object) -> Any:
        """Raise UnsupportedLearnerError."""
        raise _not_a_layer(self.name)


def _not_a_layer(name: str) -> UnsupportedLearnerError:
    package = name.partition(".")[0]
    if name.startswith(("torch.ao.", "torch.fx.", "torch.jit.")):
        return UnsupportedLearnerError(
            f"the network uses {name}: it was traced or quantized; use learn.export() before that"
        )
    if name.startswith("fastai.vision.models.unet."):
        return UnsupportedLearnerError(
            f"the network is a unet ({name}), which labels pixels; this project is for one "
            "label a photo; train a vision_learner and export it"
        )
    if name.endswith(" of torch"):
        return UnsupportedLearnerError(
            f"the network calls {name} by name; use the layer of torch.nn instead, such as "
            "nn.ReLU(), or the function of torch.nn.functional; train again and export"
        )
    if package in ("fastai", "timm", "torch", "torchvision"):
        return UnsupportedLearnerError(
            f"the network uses {name}, which is not a layer of today's {package}; train it again "
            f"with today's (pip install --upgrade {package}), or another network such as resnet34, "
            "and export"
        )
    return UnsupportedLearnerError(
        f"the network uses {name}, which is not a layer of torch, torchvision, timm or fastai, and "
        "the code of others is never run; build the network from their layers, with nn.Sequential "
        "for example, train and export again"
    )


def build_network(model: Object, archive: Archive, *, with_constructors: bool = False) -> nn.Module:
    """Build a network in evaluation mode, on the CPU, in float32.

    Parameters
    ----------
    model : Object
        The network in the parsed pickle.
    archive : Archive
        Holds the data of its tensors.
    with_constructors : bool, optional
        Whether to build networks of timm by its constructors, instead of layer by layer.

    Raises
    ------
    UnsupportedLearnerError
        It does not consist of layers of torch, torchvision, timm and fastai.
    ConversionError
        Data of a tensor is missing or damaged.
    """
    try:
        for _ in WRAPPERS:  # no more: a crafted one holds itself
            if model.cls in WRAPPERS:
                model = model.get("_modules", {}).get(WRAPPERS[model.cls]) or model.args[0]
        with archive.open_storages() as read:
            network = _Builder(read, with_constructors=with_constructors).build(model)
        if isinstance(network, nn.Module):
            return network.float().eval().requires_grad_(False)
    except _DAMAGES as error:
        raise ConversionError(f"the network is damaged ({error})") from error
    raise _not_a_layer(model.cls)


_DAMAGES = (
    *(RuntimeError, TypeError, ValueError, AttributeError, LookupError),
    *(ArithmeticError, AssertionError, MemoryError),  # the last two of today's constructors, too
)


class _Builder:
    """Builds one network; one symbol gives one object, so that shared layers stay shared."""

    def __init__(
        self, read: Callable[[str, int], bytes], *, with_constructors: bool = False
    ) -> None:
        self.read = read
        self.with_constructors = with_constructors
        self.built: dict[int, Any] = {}
        self.storages: dict[str, torch.Tensor] = {}
        self.left: dict[str, int] = {}
        self.sizes: dict[nn.Module, int] = {}
        self.rebuilt = False

    def build(self, value: Any) -> Any:
        """Build the value of a symbol or of a container of symbols."""
        if isinstance(value, (str, bytes, int, float, complex)) or value is None:
            return value
        if id(value) in self.built:
            return self.built[id(value)]
        if isinstance(value, Global):
            built = self.built[id(value)] = _resolve(value)
            return built
        if isinstance(value, Object):
            return self.build_object(value)
        if isinstance(value, (tuple, set, frozenset)):
            built = self.built[id(value)] = type(value)(self.build(member) for member in value)
            return built
        if isinstance(value, list):
            members: list[Any] = []
            self.built[id(value)] = members
            members += [self.build(member) for member in value]
            return members
        if isinstance(value, dict):
            table: dict[Any, Any] = OrderedDict() if isinstance(value, OrderedDict) else {}
            self.built[id(value)] = table
            for key, member in value.items():
                table[self.build(key)] = self.build(member)
            return table
        return Placeholder(shorten(value))

    def build_object(self, symbol: Object) -> Any:
        """Build an object: a tensor, a layer, an enum member, or a placeholder."""
        built = self.special(symbol)
        if built is None:
            call = symbol.call
            cls = _resolve(call) if isinstance(call, Global) else None
            of_timm = (
                self.with_constructors
                and isinstance(call, Global)
                and call.module.startswith("timm.")
            )
            if of_timm and isinstance(cls, Placeholder) and symbol.get("_modules") is not None:
                cls = nn.Module  # it only keeps its tensors, until the whole network is built
            if isinstance(cls, type) and issubclass(cls, nn.Module):
                if not isinstance(symbol.state, dict):
                    raise TypeError(f"{symbol.cls} has no attributes")
                built = object.__new__(cls)
                self.built[id(symbol)] = built  # before its attributes, which may refer to it
                built.__setstate__(self.build(symbol.state))  # type: ignore[no-untyped-call]
                _check_hooks(built)
                self.count_layers(built)
                if not of_timm:
                    complete(built)
                elif hasattr(built, "default_cfg"):
                    built = self.rebuild(built, call.module)
                for layer in built._modules.values():
                    if isinstance(layer, Placeholder):
                        layer()  # raises
            elif isinstance(cls, type) and issubclass(cls, Enum):
                built = cls(*(arg for arg in symbol.args if isinstance(arg, (int, str))))
            elif isinstance(call, Global) and (call.module, call.name) in WEIGHT_HOOKS:
                built = object.__new__(getattr(importlib.import_module(call.module), call.name))
                vars(built).update(self.build(symbol.state))
            elif _is_recording_hook(symbol):
                built = _do_nothing
            else:
                built = Placeholder(
                    symbol.cls
                    if isinstance(call, Global) and call.name not in ("_make_function", "getattr")
                    else describe(symbol)
                )
        self.built[id(symbol)] = built
        return built

    def count_layers(self, layer: nn.Module) -> None:
        """Check that torch can walk through a layer in a reasonable time."""
        parts = [part for part in layer._modules.values() if isinstance(part, nn.Module)]
        self.sizes[layer] = 1 + sum(self.sizes.get(part, 0) for part in parts)
        if self.sizes[layer] > MAX_LAYERS:
            raise UnsupportedLearnerError(
                f"the network has more than {MAX_LAYERS:,} layers; train a usual one, such as "
                "resnet34, and export it"
            )

    def rebuild(self, network: nn.Module, module: str) -> nn.Module:
        """Build a network by timm's constructor; one only: trying all of a family takes seconds."""
        if self.rebuilt:
            raise UnsupportedLearnerError(
                "the network holds several of an older timm; train one with today's and export it"
            )
        self.rebuilt = True
        return rebuild(network, module)

    def special(self, symbol: Object) -> Any:
        """Build a tensor or another value that is not a layer; None if it is none of these."""
        match symbol.cls, symbol.args:
            case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2", (
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
                return self.special(Object(call, args))
            case str(name), _ if name.startswith("torch._utils._rebuild_"):
                raise UnsupportedLearnerError(
                    f"the network has a tensor of an unusual kind ({name}); call "
                    "learn.model.cpu() before learn.export(), and do not quantize the network"
                )
            case "torch.Size", (tuple() as size,) if len(size) <= MAX_DIMENSIONS:
                return torch.Size(size)
            case "torch.device", _:
                return torch.device("cpu")
            case "functools.partial", _:
                return self.partial(symbol)
        return None

    def partial(self, symbol: Object) -> Any:
        """Build a partial of a layer's class or of a function of torch.nn.functional."""
        match symbol.state:
            case (call, tuple() as args, dict() as kwargs, _) if (
                len(args) + len(kwargs) <= MAX_ITEMS  # each partial has a copy of them
            ):
                function = self.build(call)
                if callable(function):
                    return functools.partial(function, *self.build(args), **self.build(kwargs))
        return Placeholder(symbol.cls)

    def tensor(self, storage: Storage, offset: int, size: Any, stride: Any) -> torch.Tensor:
        """Build a view of a storage; `as_strided` checks its bounds.

        A view may be copied, so all views of a storage together have a limit too.
        """
        elements = math.prod(int(length) for length in size[:MAX_DIMENSIONS])
        left = self.left.get(storage.key, MAX_VIEWS * storage.numel) - elements
        if elements > storage.numel or left < 0 or len(size) > MAX_DIMENSIONS:
            raise ValueError(f"a tensor has more elements than its storage: {shorten(size)}")
        self.left[storage.key] = left
        if storage.key not in self.storages:
            dtype = STORAGES[storage.kind]
            nbytes = storage.numel * dtype.itemsize
            raw = bytearray(self.read(storage.key, nbytes))
            self.storages[storage.key] = (
                torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
            )
        flat = self.storages[storage.key]
        return flat.as_strided(tuple(size), tuple(stride), offset).contiguous()


def _is_recording_hook(symbol: Object) -> bool:
    """Whether a hook of fastai or of wandb only stores what passes a layer."""
    match symbol:
        case Object(Global("builtins" | "__builtin__", "getattr"), (Object() as hook, "hook_fn")):
            return hook.cls == "fastai.callback.hook.Hook"
        case Object(Global("builtins", "MethodType"), (method, Object() as hook)):
            return hook.cls == "fastai.callback.hook.Hook" and class_name(method) == "hook_fn"
        case Object(state=(_, {"__module__": str(module)})):  # a function stored by value
            return module.startswith("wandb.")
    return False


def _do_nothing(*_: object) -> None:
    """Replace a hook."""


def _check_hooks(layer: nn.Module) -> None:
    """Drop the hooks that only training or saving calls; refuse those that may change outputs."""
    for name, hooks in vars(layer).items():
        if name.endswith("_hooks") and not name.startswith("_forward"):
            hooks.clear()
    registered = [vars(layer).get(name, {}) for name in ("_forward_pre_hooks", "_forward_hooks")]
    for hook in [hook for hooks in registered for hook in hooks.values()]:
        if isinstance(hook, Placeholder):
            raise UnsupportedLearnerError(
                f"the network has a hook ({hook.name}) that may change what it computes; "
                "call remove() of what registered it, and export again"
            )


def _resolve(name: Global) -> Any:
    """Return a layer's class, an enum, a dtype or a function of torch.nn.functional."""
    replacement = REPLACEMENTS.get((name.module, name.name))
    if replacement is not None:
        return replacement
    if name.module == "torch" and isinstance(getattr(torch, name.name, None), torch.dtype):
        return getattr(torch, name.name)
    is_layer = LAYER_MODULES.fullmatch(name.module)
    known = is_layer or FUNCTION_MODULES.fullmatch(name.module)
    place = find_layer(name.module, name.name) if known else None
    if place is None:
        return Placeholder(str(name))
    found = getattr(_import(place[0]), place[1], None)
    if not is_layer:
        return found
    if not isinstance(found, type) or (found.__module__, found.__qualname__) != place:
        return Placeholder(str(name))
    if issubclass(found, Enum):
        return found
    # These two compile source code that they contain.
    compiles = issubclass(found, (torch.fx.GraphModule, torch.jit.ScriptModule))
    return found if issubclass(found, nn.Module) and not compiles else Placeholder(str(name))


def _import(module: str) -> Any:
    if module not in sys.modules:
        if module.startswith("fastai."):
            import_fastai()
        else:
            mend_torchvision()
    return importlib.import_module(module)
