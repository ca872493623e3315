"""What importing the package costs: neither torch nor fastai comes with what serves a visitor."""

import subprocess
import sys

import icon_classifier

NAMES = {"IconClassifierError", "Model", "Prediction", "open_model", "read_image"}
HEAVY = {"torch", "torchvision", "fastai", "timm", "onnx", "spacy", "pandas", "matplotlib"}
MODULES = [
    "errors",
    "images",
    "model.session",
    "page.ui",
    "api.app",
    "api.serve",
    "cli.main",
    "cli.predict",
    "cli.smoke",
    "kernels.manager",
    "server.app",
    "server.visitor",
    "site.build",
    # `make train` tells what is wrong with a recipe or its photos before it loads torch.
    "dataset.recipes",
    "dataset.gather",
]
IMPORT_EACH = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(f"icon_classifier.{name}")
    print(name, *{module.partition(".")[0] for module in sys.modules})
"""


def modules_after(code: str) -> set[str]:
    """Return the top-level modules that a new process has imported."""
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {module.partition(".")[0] for module in done.stdout.split()}


def test_package_exports_these_five_names() -> None:
    assert set(icon_classifier.__all__) == NAMES
    assert all(hasattr(icon_classifier, name) for name in NAMES)


def test_exported_names_import_nothing_heavy() -> None:
    modules = modules_after(f"from icon_classifier import {', '.join(sorted(NAMES))}")
    assert "onnxruntime" in modules
    assert not modules & HEAVY


def test_package_alone_imports_no_library() -> None:
    assert not modules_after("import icon_classifier") & {"onnxruntime", "numpy", "PIL"}


def test_serving_modules_import_nothing_heavy() -> None:
    command = [sys.executable, "-c", IMPORT_EACH, *MODULES]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    imported = {line.split()[0]: set(line.split()[1:]) for line in answer.stdout.splitlines()}
    assert list(imported) == MODULES
    assert {name: loaded & HEAVY for name, loaded in imported.items() if loaded & HEAVY} == {}


def test_release_needs_no_package_of_the_tests() -> None:
    """`make release-model` installs what training needs, and compares by a benchmark."""
    code = "import sys; sys.modules |= dict.fromkeys(sys.argv[1:]); import bench.bench_parity"
    names = ["playwright", "pytest", "hypothesis", "schemathesis", "trustme"]
    subprocess.run([sys.executable, "-c", code, *names], check=True)
