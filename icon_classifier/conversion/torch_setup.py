"""Let torchvision be imported where its compiled operators cannot be loaded.

Where only PyPI is in reach, torchvision comes as its CUDA build, whose operators do not load beside
a CPU build of torch; ``import torchvision`` then fails with "operator torchvision::nms does not
exist". Image classifiers use none of those operators.
"""

import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType

_REGISTRATIONS = "torchvision._meta_registrations"


def mend_torchvision() -> bool:
    """Make ``import torchvision`` work where its compiled operators cannot be loaded.

    An empty module stands in for the one that describes those operators to torch, which is all
    that fails. Where the operators do load, or torchvision is imported already, nothing is done.

    Returns
    -------
    bool
        Whether it was mended.
    """
    if "torchvision" in sys.modules:
        return False
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False  # let the import itself say what is missing

    import torch

    operators = sorted(Path(spec.origin).parent.glob("_C.*"))
    try:
        for path in operators:
            torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except OSError:
        operators = []
    if operators:
        return False
    sys.modules[_REGISTRATIONS] = ModuleType(_REGISTRATIONS)
    return True


def import_fastai() -> None:
    """Import fastai and torchvision in a process that needs them, without their warnings.

    fastai calls parts of torch that are deprecated; that is for its authors, not for whoever
    compiles a model. Warnings that come later, from our own use, are not touched.
    """
    mend_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("fastai.vision.all")
