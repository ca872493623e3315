"""The names that an export.pkl may contain.

A fastai Learner names some two hundred classes and functions. Classes may come from fastai and
its libraries and from the layers and architectures of torch, torchvision and timm; functions from
a few modules of those; little else. A name is allowed only in the module whose source defines it:
fastai's modules also contain ``os``, ``subprocess`` and the like, which they import, and a dotted
name such as ``os.system`` is never allowed. The sources are parsed, not imported.

An allowed name is not run either: see :mod:`icon_classifier.conversion.unpickler`.
"""

import ast
import importlib.util
from functools import cache
from pathlib import Path

EXACT: dict[str, frozenset[str]] = {
    module: frozenset(names.split())
    for module, names in {
        "PIL.Image": "Image Resampling",
        "_abcoll": "Callable _CallableGenericAlias",
        "_codecs": "encode",
        "_operator": "getitem or_",
        "cloudpickle.cloudpickle": (
            # Functions and classes stored by value; they remain symbols and are never created.
            "_builtin_type _class_setstate _function_setstate _make_cell _make_empty_cell "
            "_make_function _make_skeleton_class subimport"
        ),
        "collections": "OrderedDict defaultdict Counter",
        "collections.abc": "Callable _CallableGenericAlias",
        "enum": "Enum EnumMeta EnumType",
        "functools": "partial",
        "inspect": "Parameter Signature _ParameterKind _empty",
        "numpy": "dtype float32 float64 int64 less greater ndarray str_",
        "numpy._core.multiarray": "_reconstruct scalar",
        "numpy.core.multiarray": "_reconstruct scalar",
        "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
        "random": "Random",
        "re": "Pattern _compile",
        "torch": (
            "BFloat16Storage BoolStorage ByteStorage CharStorage DoubleStorage FloatStorage "
            "HalfStorage IntStorage LongStorage ShortStorage Size Tensor "
            "bfloat16 bool channels_last contiguous_format device float16 float32 float64 int16 "
            "int32 int64 int8 uint8"
        ),
        "torch._tensor": "_rebuild_from_type_v2",
        "torch._utils": "_rebuild_parameter _rebuild_parameter_with_state _rebuild_tensor_v2",
        "torch.nn.parameter": "Parameter",
        "typing": "Any Callable Optional Union",
        **dict.fromkeys(
            ("builtins", "__builtin__"),
            "Ellipsis NoneType NotImplemented bool bytes complex dict float frozenset getattr int "
            "list long object print property reduce set slice str tuple type unicode",
        ),
    }.items()
}

CLASS_PACKAGES = (
    "fastai",
    "fastcore",
    "fasttransform",
    "plum",
    "timm.data",
    "timm.layers",
    "timm.models",
    "torch.nn.modules",
    "torchvision.models",
    "torchvision.ops",
)
"""Packages whose classes may be named."""

FUNCTION_PACKAGES = (
    "fastai.callback.schedule",
    "fastai.data.block",
    "fastai.data.load",
    "fastai.data.transforms",
    "fastai.imports",
    "fastai.layers",
    "fastai.losses",
    "fastai.metrics",
    "fastai.optimizer",
    "fastai.vision.augment",
    "fastai.vision.core",
    "fastai.vision.learner",
    "fastai.vision.models",
    "fastcore.basics",
    "fastcore.foundation",
    "timm.layers",
    "timm.models",
    "torch.nn.functional",
    "torch.nn.init",
    "torchvision.models",
)
"""Packages and modules whose functions may be named."""

REFUSED = frozenset(
    {
        *("exec_eval", "exec_import", "exec_local", "exec_new"),
        *("import_file", "import_from_file", "import_no_init"),
        *("load_checkpoint", "load_model_config_from_hf", "load_pretrained"),
    }
)
"""Functions that run or load something though a module of `FUNCTION_PACKAGES` defines them."""


@cache
def is_allowed(module: str, name: str) -> bool:
    """Return whether an export.pkl may contain a name of a module."""
    if name in EXACT.get(module, ()):
        return True
    classes, functions = _definitions(module)
    if name in REFUSED:
        return False
    return (name in classes and _is_in(module, CLASS_PACKAGES)) or (
        name in functions and _is_in(module, FUNCTION_PACKAGES) and "._" not in module
    )


def is_defined(module: str, name: str) -> bool:
    """Return whether a module's own source defines a class or function at its top level."""
    classes, functions = _definitions(module)
    return name in classes or name in functions


def _is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@cache
def _definitions(module: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the classes and functions at the top level of a module's source, without importing."""
    nothing: frozenset[str] = frozenset()
    if not _is_in(module, CLASS_PACKAGES + FUNCTION_PACKAGES):
        return nothing, nothing
    root, *parts = module.split(".")
    spec = importlib.util.find_spec(root)  # of a top-level package: this imports nothing
    if spec is None or spec.origin is None or not all(part.isidentifier() for part in parts):
        return nothing, nothing
    base = Path(spec.origin).parent.joinpath(*parts)
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    if not path.is_file():
        return nothing, nothing
    classes, functions = set(), set()
    blocks: list[ast.stmt] = list(ast.parse(path.read_bytes()).body)
    while blocks:
        statement = blocks.pop()
        if isinstance(statement, ast.ClassDef):
            classes.add(statement.name)
        elif isinstance(statement, ast.FunctionDef):
            functions.add(statement.name)
        elif isinstance(statement, (ast.If, ast.Try)):
            blocks += statement.body + statement.orelse
    return frozenset(classes), frozenset(functions)
