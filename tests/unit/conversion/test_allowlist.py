"""Only what a module of the allowed packages defines may be used; what it imports may not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from icon_classifier.conversion.allowlist import is_defined


@pytest.mark.parametrize(
    "name",
    [
        "fastai.layers ConvLayer",
        "torch.nn.functional relu",
        "torch.nn.modules.conv Conv2d",
        "torchvision.models.resnet BasicBlock",
        "timm.layers.conv2d_same Conv2dSame",
        "timm.models._efficientnet_blocks InvertedResidual",
    ],
)
def test_layers_are_defined(name):
    assert is_defined(*name.split())


@pytest.mark.parametrize(
    "name",
    [
        "os system",
        "builtins eval",
        "builtins __import__",
        "fastai.imports os",
        "fastai.layers os.system",
        "fastai.layers nn",
        "fastai.learner load_learner",
        "fastai..layers ConvLayer",
        "fastai./layers ConvLayer",
        "fastai.layers.. ConvLayer",
        "fastai.vision.nothing Learner",
        "fastaix.layers ConvLayer",
        "fastcore.xtras run",
        "timm.modelsx Model",
        "torch load",
        "torch.hub load",
        "torch.nn.modules.module torch",
        "torch.nn.modules/../../hub load",
        "icon_classifier.conversion.convert convert",
    ],
)
def test_other_names_are_not_defined(name):
    assert not is_defined(*name.split())


def test_names_are_looked_up_without_importing_their_modules():
    script = (
        "import sys; from icon_classifier.conversion.allowlist import is_defined\n"
        "assert is_defined('torch.nn.modules.conv', 'Conv2d')\n"
        "assert not is_defined('torch.nn.modules.conv', 'Tensor')\n"
        "assert not {'torch', 'fastai', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
