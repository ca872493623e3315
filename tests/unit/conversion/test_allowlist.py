"""The names in a Learner are allowed; names that a module merely imports are not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from icon_classifier.conversion.allowlist import is_allowed, is_defined


@pytest.mark.parametrize(
    "name",
    [
        "fastai.learner Learner",
        "fastai.callback.tracker SaveModelCallback",
        "fastai.vision.learner default_split",
        "fastai.metrics error_rate",
        "fasttransform.transform Pipeline",
        "plum._function Function",
        "torch.nn.modules.conv Conv2d",
        "torchvision.models.resnet BasicBlock",
        "torchvision.models.resnet resnet18",
        "timm.layers.conv2d_same Conv2dSame",
        "timm.models._efficientnet_blocks InvertedResidual",
        "collections OrderedDict",
        "builtins getattr",
    ],
)
def test_names_in_a_learner_are_allowed(name):
    assert is_allowed(*name.split())


@pytest.mark.parametrize(
    "name",
    [
        "os system",
        "posix system",
        "nt system",
        "builtins eval",
        "builtins exec",
        "builtins __import__",
        "operator attrgetter",
        "functools reduce",
        "fastai.imports os",
        "fastai.imports os.system",
        "fastai.imports subprocess",
        "fastai.imports import_module",
        "fastai.learner os",
        "fastai.learner torch",
        "fastai.learner Path",
        "fastai.learner Learner.export",
        "fastai.learner load_learner",
        "fastai.data.external untar_data",
        "fastai.vision.all Learner",
        "fastai..learner Learner",
        "fastai./learner Learner",
        "fastai.nothing Learner",
        "fastaix.learner Learner",
        "fastcore.xtras run",
        "fastcore.basics exec_new",
        "fastcore.basics exec_import",
        "torch load",
        "torch.hub load",
        "torch.serialization load",
        "torch.jit._serialization load",
        "torch.fx.graph_module GraphModule",
        "torch.fx.graph_module reduce_graph_module",
        "torch.nn.modules.module torch",
        "torch.ops load_library",
        "torch._ops _Ops",
        "torchvision.models.resnet handle_legacy_interface",
        "timm.models._builder load_pretrained",
        "timm.models._hub load_state_dict_from_hf",
        "numpy load",
        "pickle loads",
        "dill loads",
        "pathlib Path.write_text",
        "__main__ Model",
        "icon_classifier.conversion.convert convert",
    ],
)
def test_other_names_are_refused(name):
    assert not is_allowed(*name.split())


def test_names_are_looked_up_without_importing_their_modules():
    assert is_defined("torch.nn.modules.conv", "Conv2d")
    assert not is_defined("torch.nn.modules.conv", "Tensor")
    script = (
        "import sys; from icon_classifier.conversion.allowlist import is_allowed\n"
        "assert is_allowed('torch.nn.modules.conv', 'Conv2d')\n"
        "assert not {'torch', 'fastai', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
