"""The packages whose layers and functions the network of an export.pkl may use.

A name counts only in the module whose source defines it: modules also contain ``os`` and the like,
which they import, and a dotted name such as ``os.system`` is defined nowhere. The sources are
parsed, not imported. All other names in an export.pkl are read and never looked up: see
:mod:`icon_classifier.conversion.unpickler`.
"""

import ast
import importlib.util
from functools import cache
from pathlib import Path

PACKAGES = (
    *("fastai.layers", "fastai.torch_core", "fastai.vision"),
    *("timm.layers", "timm.models"),
    *("torch.nn.functional", "torch.nn.modules"),
    *("torchvision.models", "torchvision.ops"),
)


def is_defined(module: str, name: str) -> bool:
    """Return whether a module of `PACKAGES` defines a class or function at its top level."""
    return name in _definitions(module)


@cache
def _definitions(module: str) -> frozenset[str]:
    """Return the classes and functions at the top level of a module's source, without importing."""
    root, *parts = module.split(".")
    if not any(f"{module}.".startswith(f"{package}.") for package in PACKAGES) or not all(
        part.isidentifier() for part in parts
    ):
        return frozenset()
    spec = importlib.util.find_spec(root)  # of a top-level package: this imports nothing
    if spec is None or spec.origin is None:
        return frozenset()
    base = Path(spec.origin).parent.joinpath(*parts)
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    if not path.is_file():
        return frozenset()
    names = set()
    blocks: list[ast.stmt] = list(ast.parse(path.read_bytes()).body)
    while blocks:
        statement = blocks.pop()
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            names.add(statement.name)
        elif isinstance(statement, (ast.If, ast.Try)):
            blocks += statement.body + statement.orelse
    return frozenset(names)
