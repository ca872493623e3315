"""Your own picture classifier: a photo in, a label out.

The public names, none of which imports torch::

    from icon_classifier import open_model, read_image

    model = open_model("folder/with/export.onnx")
    with open("photo.jpg", "rb") as file:
        print(model.predict(read_image(file.read())))
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icon_classifier.errors import IconClassifierError
    from icon_classifier.images import read_image
    from icon_classifier.model.opening import open_model
    from icon_classifier.model.session import Model, Prediction

# ONNX Runtime reports its use to its makers, from a thread of its own, unless told not to before it
# is imported. A visitor's photo is nobody else's business, and a process with threads cannot be
# forked.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["IconClassifierError", "Model", "Prediction", "open_model", "read_image"]

_MODULES = {
    "IconClassifierError": "icon_classifier.errors",
    "Model": "icon_classifier.model.session",
    "Prediction": "icon_classifier.model.session",
    "open_model": "icon_classifier.model.opening",
    "read_image": "icon_classifier.images",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: the web server needs no ONNX Runtime, which takes 20 MB.
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
