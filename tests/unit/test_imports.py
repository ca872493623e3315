"""What serves a visitor stays light: neither torch nor fastai comes with it."""

import importlib.util
import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "fastai", "timm", "onnx", "spacy", "pandas", "matplotlib"}
MODULES = [
    name
    for name in (
        "errors",
        "images",
        "model.session",
        "page.ui",
        "api.app",
        "api.serve",
        "cli.main",
        "cli.predict",
        "kernels.manager",
        "server.app",
        "server.visitor",
        # `make train` tells what is wrong with a recipe or its photos before it loads torch.
        "dataset.recipes",
        "dataset.gather",
    )
    if importlib.util.find_spec(f"icon_classifier.{name}")
]


@pytest.mark.parametrize("name", MODULES)
def test_serving_module_imports_nothing_heavy(name: str) -> None:
    code = f"import icon_classifier.{name}, sys; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    loaded = {module.partition(".")[0] for module in answer.stdout.split()}
    assert "icon_classifier" in loaded
    assert not loaded & HEAVY
