"""Import torchvision where its compiled operators cannot be loaded; limit torch to one thread.

PyPI has only torchvision's CUDA build, whose operators do not load with a CPU build of torch;
``import torchvision`` then fails with "operator torchvision::nms does not exist". Image classifiers
use none of those operators.
"""

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

_REGISTRATIONS = "torchvision._meta_registrations"


def mend_torchvision() -> None:
    """Make ``import torchvision`` work where its compiled operators cannot be loaded.

    Only the module that describes those operators to torch fails; an empty one replaces it. Nothing
    is done where the operators load or torchvision is already imported.
    """
    if "torchvision" in sys.modules:
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return  # the import itself reports what is missing

    import torch

    operators = sorted(Path(spec.origin).parent.glob("_C.*"))
    try:
        for path in operators:
            torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except OSError:
        operators = []
    if not operators:
        sys.modules[_REGISTRATIONS] = ModuleType(_REGISTRATIONS)


def import_fastai() -> None:
    """Import fastai and torchvision without their warnings.

    fastai uses deprecated parts of torch when it is imported. Later warnings are not suppressed.
    """
    mend_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("fastai.vision.all")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: for a single picture, several mostly wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
