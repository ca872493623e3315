"""The names that ``icon_classifier`` exports, and what importing them costs."""

import subprocess
import sys

import icon_classifier

NAMES = {"IconClassifierError", "Model", "Prediction", "open_model", "read_image"}


def modules_after(code: str) -> set[str]:
    """Return the top-level modules that a new process has imported."""
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {module.partition(".")[0] for module in done.stdout.split()}


def test_the_face_is_these_five_names() -> None:
    assert set(icon_classifier.__all__) == NAMES
    assert all(hasattr(icon_classifier, name) for name in NAMES)


def test_importing_the_names_does_not_import_torch() -> None:
    modules = modules_after(f"from icon_classifier import {', '.join(sorted(NAMES))}")
    assert "onnxruntime" in modules
    assert not modules & {"torch", "torchvision", "fastai", "timm", "onnx"}


def test_importing_the_package_alone_imports_no_library() -> None:
    assert not modules_after("import icon_classifier") & {"onnxruntime", "numpy", "PIL"}
