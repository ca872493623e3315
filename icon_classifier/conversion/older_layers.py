"""Bring networks that older versions of fastai, timm, torch and torchvision saved up to date.

A pickle holds a layer's attributes and the name of its class, but not its code. Where a class has
moved since, it is found by its name; what its code expects and the file lacks is added so that the
layer computes what it computed: an added layer is the identity, a number is the constructor's
default. A layer with parameters or parts that today's class does not use is refused. A network of
timm that cannot be completed so is built by its constructor, and its weights are loaded as timm
loads old ones.

A name counts only in the module of `PACKAGES` whose source defines it: modules also contain ``os``
and the like, which they import, and a dotted name such as ``os.system`` is defined nowhere. The
sources are parsed, not imported.
"""

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from icon_classifier.conversion.padding import input_sizes
from icon_classifier.errors import UnsupportedLearnerError

PACKAGES = (
    *("fastai.layers", "fastai.torch_core", "fastai.vision"),
    *("timm.layers", "timm.models"),
    *("torch.nn.functional", "torch.nn.modules"),
    *("torchvision.models", "torchvision.ops"),
)
"""Packages whose layers and functions the network of an export.pkl may use."""

_MOVED = {
    "timm.models.layers": "timm.layers",
    "torchvision.models.mobilenet": "torchvision.models.mobilenetv2",
}
"""Modules whose layers are elsewhere today."""

_RENAMED = {
    ("fastai.layers", "Mish"): ("torch.nn.modules.activation", "Mish"),
    ("fastai.layers", "Swish"): ("torch.nn.modules.activation", "SiLU"),
    ("timm.models.cspnet", "ResBottleneck"): ("timm.models.cspnet", "BottleneckBlock"),
    ("timm.models.rexnet", "ReXNetV1"): ("timm.models.rexnet", "RexNet"),
    ("torchvision.models.mobilenetv2", "ConvBNReLU"): ("torch.nn.modules.container", "Sequential"),
}
"""Classes that have another name today."""

_DERIVED: dict[str, Callable[[Any], Any]] = {
    "_fast_norm": lambda _: False,
    "attn_dim": lambda layer: layer.qkv.out_features // 3,
    "fused_attn": lambda _: False,  # another way to compute the same
    "has_skip": lambda layer: layer.has_residual,
    "head_dim": lambda layer: layer.qkv.in_features // layer.num_heads,
    "head_drop": lambda _: nn.Identity(),
    "output_fmt": lambda _: importlib.import_module("timm.layers").Format.NCHW,
}
"""Attributes that no constructor's default gives, by name."""

_REBUILT = (
    *("cait", "convmixer", "cspnet", "ghostnet", "inception_v3", "inception_v4", "levit", "pit"),
    *("pvt_v2", "swin_transformer", "swin_transformer_v2", "visformer", "xcit"),
)
"""Modules of timm whose networks were compared with the answers of timm 0.4.12, 0.5.4 and 0.6.13
after their weights had been loaded into today's. Others compute something else today: the norm of a
poolformer, for example, comes after its pooling."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers that training fills; all others are made by constructors."""

_NUMBERS = ("stride", "padding", "dilation", "groups", "num_groups", "eps")
"""Numbers of layers with weights that decide what they compute."""

_NEUTRAL_LAYERS = re.compile(r"Identity|Dropout\d?d?|DropPath|StochasticDepth|create_aa")
"""Layers that change nothing at validation."""


@cache
def find_layer(module: str, name: str) -> tuple[str, str] | None:
    """Return the module that defines a class today, and its name there; None if there is none."""
    for old, new in _MOVED.items():
        if module == old or module.startswith(f"{old}."):
            module = module.replace(old, new, 1)
    module, name = _RENAMED.get((module, name), (module, name))
    if is_defined(module, name):
        return module, name
    tree = _parse(module)
    if tree is None:  # the modules of timm that are not public got an underscore
        private = re.sub(r"(\w+)$", r"_\1", module)
        return (private, name) if is_defined(private, name) else None
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=alias)], value=ast.Name(id=original)):
                if alias == name:
                    return find_layer(module, original)
            case ast.ImportFrom(module=source, names=imported, level=level):
                if any(each.name == name and each.asname in (None, name) for each in imported):
                    return find_layer(_absolute(module, source or "", level), name)
    return None


def is_defined(module: str, name: str) -> bool:
    """Return whether a module of `PACKAGES` defines a class or function at its top level."""
    return name in _definitions(module)


@cache
def _definitions(module: str) -> frozenset[str]:
    """Return the classes and functions at the top level of a module's source, without importing."""
    allowed = any(f"{module}.".startswith(f"{package}.") for package in PACKAGES)
    if not allowed or not all(part.isidentifier() for part in module.split(".")):
        return frozenset()
    tree = _parse(module)
    blocks: list[ast.stmt] = tree.body.copy() if tree else []
    names = set()
    while blocks:
        statement = blocks.pop()
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            names.add(statement.name)
        elif isinstance(statement, (ast.If, ast.Try)):
            blocks += statement.body + statement.orelse
    return frozenset(names)


def _parse(module: str) -> ast.Module | None:
    """Parse the source of a module; None if there is none."""
    path = _path(module)
    return ast.parse(path.read_bytes()) if path and path.is_file() else None


def _path(module: str) -> Path | None:
    root, *parts = module.split(".")
    spec = importlib.util.find_spec(root)  # of a top-level package: this imports nothing
    if spec is None or spec.origin is None:
        return None
    base = Path(spec.origin).parent.joinpath(*parts)
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _absolute(module: str, source: str, level: int) -> str:
    """Return the name of a module that another imports relatively."""
    path = _path(module)
    inside = 1 if path and path.name == "__init__.py" else 0
    parents = module.split(".")[: len(module.split(".")) - level + inside] if level else []
    return ".".join([*parents, *filter(None, [source])])


def complete(layer: nn.Module) -> None:
    """Add the attributes that the class of a layer expects, and its state lacks.

    Raises
    ------
    UnsupportedLearnerError
        It has a parameter that its class no longer knows.
    """
    cls: type = type(layer)
    if not cls.__module__.startswith(("timm.", "torch.", "torchvision.")):
        return  # fastai's layers have not changed, and some have no source of their own
    if cls.__module__ == "timm.models.regnet" and getattr(layer, "drop_path", 0) is None:
        # None was a shortcut that changes nothing, and is no shortcut since timm 0.6.
        layer.downsample = layer.downsample or nn.Identity()
    for name, make in _defaults(cls).items():
        # Where timm has a layer that does nothing today, it had None before.
        if not hasattr(layer, name) or (make is nn.Identity and getattr(layer, name) is None):
            setattr(layer, name, make())
    for name, derive in _DERIVED.items():
        if not hasattr(layer, name) and _mentions(cls, name):
            with suppress(AttributeError):
                setattr(layer, name, derive(layer))
    for name, child in list(layer.named_children()):
        # In timm before 0.6 a norm and its activation were two layers, later one.
        activation = name.replace("bn", "act")
        following = layer._modules.get(activation)
        if name.startswith("bn") and following is not None and not _mentions(cls, activation):
            setattr(layer, name, nn.Sequential(child, following))
            delattr(layer, activation)
    for name, parameter in layer._parameters.items():
        if (
            parameter is not None
            and cls.__module__.startswith("timm.")
            and not _mentions(cls, name)
        ):
            raise _changed(layer, "parameter", name)


def _changed(layer: nn.Module, kind: str, name: str) -> UnsupportedLearnerError:
    package = type(layer).__module__.partition(".")[0]
    return UnsupportedLearnerError(
        f"the network was made by an older version of {package}, whose {type(layer).__qualname__} "
        f"had a {kind} {name!r} and computed something else; train it again with today's {package}"
    )


@cache
def _defaults(cls: type) -> dict[str, Callable[[], Any]]:
    """Return makers of the attributes that a constructor sets without any argument."""
    makers: dict[str, Callable[[], Any]] = {}
    for base in cls.__mro__[: cls.__mro__.index(nn.Module)]:
        if "__init__" not in vars(base):
            continue
        constructor = vars(base)["__init__"]
        tree = ast.parse(textwrap.dedent(inspect.getsource(constructor)))
        parameters = inspect.signature(constructor).parameters
        for statement in ast.walk(tree):
            match statement:
                case ast.Assign(targets=[ast.Attribute(ast.Name("self"), name)], value=value):
                    make = _maker(value, parameters)
                    if make and (name not in makers or make in (nn.Identity, _none)):
                        makers[name] = make
    return makers


def _none() -> None:
    return None


def _maker(value: ast.expr, parameters: Any) -> Callable[[], Any] | None:
    """Return what makes the neutral value of an expression; None if there is none."""
    match value:
        case ast.Constant(value=None):
            return _none
        case ast.Constant(value=constant):
            return lambda: constant
        case ast.Name(id=name) if name in parameters:
            default = parameters[name].default
            return None if default is inspect.Parameter.empty else lambda: default
        case ast.IfExp(test=ast.Name(id=name)) if name in parameters:
            return _maker(value.body if parameters[name].default else value.orelse, parameters)
        case ast.IfExp(body=body, orelse=orelse):
            makers = [_maker(branch, parameters) for branch in (orelse, body)]
            return next((make for make in makers if make in (nn.Identity, _none)), None)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return nn.Identity if _NEUTRAL_LAYERS.fullmatch(name) else None
    return None


@cache
def _source(cls: type) -> str:
    bases = cls.__mro__[: cls.__mro__.index(nn.Module)]
    return "\n".join(inspect.getsource(base) for base in bases)


@cache
def _mentions(cls: type, name: str) -> bool:
    """Whether the source of a class or of its bases uses an attribute."""
    return re.search(rf"\bself\.{re.escape(name)}\b", _source(cls)) is not None


def rebuild(old: Any, module: str) -> nn.Module:
    """Build a whole network of timm by today's constructors, and load the weights of an old one.

    Parameters
    ----------
    old : torch.nn.Module
        The network as it was saved. Its tensors and numbers count, not the classes of its layers.
    module : str
        Name of the module of its class.

    Raises
    ------
    UnsupportedLearnerError
        No network of today has the same weights, or several that differ.
    """
    family = module.rpartition(".")[2]
    weights = _learned(old)
    import timm

    kernels = (each for name, each in weights.items() if name.endswith("weight"))
    options = {
        "num_classes": old.num_classes,
        "in_chans": next((each.shape[1] for each in kernels if each.dim() == 4), 3),
    }
    fitting: nn.Module | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in timm.list_models(module=family) if family in _REBUILT else ():
            with torch.device("meta"), _ShapesOnly():
                network = timm.create_model(name, **options)
            if _elements(_learned(network)) != _elements(weights):
                continue  # so that no network takes more memory than the one in the file
            network = timm.create_model(name, **options)
            if _load(network, old, weights):
                if fitting is not None and str(network) != str(fitting):
                    raise _no_such(family)
                fitting = network
    if fitting is None:
        raise _no_such(family)
    return fitting


def _no_such(family: str) -> UnsupportedLearnerError:
    return UnsupportedLearnerError(
        f"today's timm has no {family} of these weights; train one of its networks and export it"
    )


class _ShapesOnly(TorchFunctionMode):
    """Skips what works in place: filling tensors without data takes half the time."""

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, unless it changes its first argument."""
        named = kwargs or {}
        if func.__name__.endswith("_") and not func.__name__.endswith("__"):
            return [*args, *named.values()][0]
        return func(*args, **named)


def _learned(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return what training has made of a network, by name."""
    parameters = dict(network.named_parameters())
    return {
        name: tensor
        for name, tensor in network.state_dict().items()
        if name in parameters or name.rpartition(".")[2] in _STATISTICS
    }


def _elements(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _load(network: nn.Module, old: nn.Module, weights: Mapping[str, torch.Tensor]) -> bool:
    """Load old weights; return whether they fit and nothing else differs.

    timm renames the weights of old checkpoints. Where it does not, their order has not changed.
    """
    expected = _learned(network)
    rename = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    states = [dict(weights)]
    if rename:
        with suppress(
            RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError
        ):
            states = [rename(dict(weights), network)]
    if [name.rpartition(".")[2] for name in weights] == [
        name.rpartition(".")[2] for name in expected
    ]:
        states.append(dict(zip(expected, weights.values(), strict=True)))
    for state in states:
        if _shapes(state) == _shapes(expected):
            network.load_state_dict(state, strict=False)
            return _have_same_numbers(network, old, state, weights)
    return False


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _have_same_numbers(
    network: nn.Module,
    old: nn.Module,
    state: Mapping[str, torch.Tensor],
    weights: Mapping[str, torch.Tensor],
) -> bool:
    """Whether layers with the same weights, and buffers of the same names, have equal numbers."""
    old_names = {id(tensor): name for name, tensor in weights.items()}
    for name, tensor in state.items():
        old_name = old_names.get(id(tensor), name).rpartition(".")[0]
        layers = old.get_submodule(old_name), network.get_submodule(name.rpartition(".")[0])
        before, today = ([getattr(each, number, None) for number in _NUMBERS] for each in layers)
        if before != today:
            return False
    old_buffers = dict(old.named_buffers())
    pairs = [
        (old_buffers[name].double(), buffer.double())
        for name, buffer in network.named_buffers()
        if name in old_buffers
    ]
    return all(a.shape == b.shape and torch.allclose(a, b) for a, b in pairs)


def check_layers_used(network: nn.Module, sample: torch.Tensor) -> None:
    """Check that a network does not skip a layer that its class no longer knows.

    Raises
    ------
    UnsupportedLearnerError
        It does: it was made by a version whose class computed something else.
    """
    used = input_sizes(network, sample).keys()
    for parent in used:
        cls: type = type(parent)
        if not cls.__module__.startswith(("timm.", "torchvision.")):
            continue
        for name, layer in parent.named_children():
            neutral = _NEUTRAL_LAYERS.fullmatch(type(layer).__name__)
            if not (used & set(layer.modules()) or neutral or _mentions(cls, name)):
                raise _changed(parent, "layer", name)
