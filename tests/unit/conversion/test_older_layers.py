"""Layers of older versions compute what they computed, or are refused.

Each file of tests/support/older_networks is ``torch.save({"network": …, "outputs": …})``: a small
network of the version in its name, and its outputs for `BATCH` with that version.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from icon_classifier.conversion import network, older_layers
from icon_classifier.conversion.archive import open_archive
from icon_classifier.conversion.network import build_network
from icon_classifier.conversion.older_layers import (
    check_layers_used,
    complete,
    find_layer,
    is_defined,
    rebuild,
)
from icon_classifier.errors import UnsupportedLearnerError
from icon_classifier.system.torch_setup import mend_torchvision

OLDER = Path(__file__).resolve().parents[2] / "support" / "older_networks"
BATCH = (97 * torch.linspace(-2, 2, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32).sin()).sin()


@pytest.fixture(autouse=True, scope="module")
def _torchvision() -> None:
    mend_torchvision()


@pytest.mark.parametrize("path", sorted(OLDER.glob("*.pt")), ids=lambda path: path.stem)
def test_a_network_of_an_older_version_answers_as_it_did(path):
    archive = open_archive(path)
    network = build_network(archive.root["network"], archive)
    check_layers_used(network, BATCH)
    with torch.inference_mode():
        outputs = network(BATCH)
    torch.testing.assert_close(outputs, torch.tensor(archive.root["outputs"]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("old", "today"),
    [
        ("timm.models.layers.mlp.Mlp", "timm.layers.mlp.Mlp"),
        ("timm.models.layers.norm.LayerNorm2d", "timm.layers.norm.LayerNorm2d"),
        ("timm.models.layers.conv_bn_act.ConvNormActAa", "timm.layers.conv_bn_act.ConvNormAct"),
        ("timm.models.vision_transformer.Attention", "timm.layers.attention.Attention"),
        (
            "timm.models.efficientnet_blocks.InvertedResidual",
            "timm.models._efficientnet_blocks.InvertedResidual",
        ),
        (
            "torchvision.models.mobilenet.InvertedResidual",
            "torchvision.models.mobilenetv2.InvertedResidual",
        ),
        ("torchvision.models.mobilenet.ConvBNReLU", "torch.nn.modules.container.Sequential"),
        (
            "torchvision.models.efficientnet.SqueezeExcitation",
            "torchvision.ops.misc.SqueezeExcitation",
        ),
        ("fastai.layers.Mish", "torch.nn.modules.activation.Mish"),
        ("timm.models.resnet.os", None),
        ("timm.models.layers.mlp.NoSuchLayer", None),
        ("timm.models.no_such_module.Mlp", None),
        ("timm.models.../../layers/mlp.Mlp", None),
    ],
)
def test_a_class_is_found_where_it_is_today(old, today):
    assert find_layer(*old.rsplit(".", 1)) == (today and tuple(today.rsplit(".", 1)))


def aged(layer: nn.Module, *lacking: str) -> Any:
    """Remove attributes that an older version did not have."""
    for name in lacking:
        delattr(layer, name)
    return layer.eval()


def layers() -> list[tuple[str, nn.Module, tuple[str, ...]]]:
    """Return layers and what they lacked once."""
    mend_torchvision()
    from timm import layers as timm
    from timm.models.convnext import ConvNeXtBlock
    from timm.models.vision_transformer import Attention
    from torchvision.ops import StochasticDepth

    return [
        ("GELU", nn.GELU(), ("approximate",)),
        ("SiLU", nn.SiLU(), ("inplace",)),
        ("DropPath", timm.DropPath(0.1), ("scale_by_keep",)),
        ("Mlp", timm.Mlp(8, 16), ("norm", "drop1", "drop2")),
        (
            "Attention",
            Attention(8, 2, qkv_bias=True),
            ("head_dim", "attn_dim", "q_norm", "k_norm", "norm", "gate", "fused_attn"),
        ),
        ("LayerNorm2d", timm.LayerNorm2d(8), ("_fast_norm",)),
        ("ConvNeXtBlock", ConvNeXtBlock(8), ("shortcut", "use_conv_mlp")),
        ("StochasticDepth", nn.Sequential(StochasticDepth(0.1, "row")), ()),
    ]


@pytest.mark.parametrize(("name", "layer", "lacking"), layers(), ids=lambda value: str(value)[:20])
def test_what_a_layer_lacks_is_added(name, layer, lacking):
    shape = (2, 4, 8) if name in ("Mlp", "Attention") else (2, 8, 6, 6)
    batch = torch.randn(shape)
    expected = layer.eval()(batch)
    old = aged(layer, *lacking)
    complete(old)
    torch.testing.assert_close(old(batch), expected)


def test_a_norm_and_an_activation_that_were_two_layers_stay_both():
    from timm.models._efficientnet_blocks import ConvBnAct

    block = ConvBnAct(3, 4, 3).eval()
    batch = torch.randn(1, 3, 8, 8)
    expected = block(batch)
    block.bn1, block.act1 = nn.BatchNorm2d(4).eval(), nn.ReLU()
    complete(block)
    torch.testing.assert_close(block(batch), expected)


def older(name: str, **renamed: str) -> Any:
    """Return a network of timm whose layers have other names, and are of classes that are gone."""
    import timm

    network = timm.create_model(name, num_classes=3).eval()
    for layer in network.modules():
        layer._modules = {renamed.get(key, key): each for key, each in layer._modules.items()}
    return network


@pytest.mark.parametrize(
    ("name", "renamed"),
    [
        pytest.param("levit_128s", {"linear": "c"}, marks=pytest.mark.slow),
        ("pit_ti_224", {"norm1": "norm_a"}),
    ],
)
def test_a_network_of_older_classes_is_built_by_a_constructor_with_its_weights(
    name, renamed, tmp_path, monkeypatch
):
    network = older(name, **renamed)
    today = older(name)
    today.load_state_dict(dict(zip(today.state_dict(), network.state_dict().values(), strict=True)))
    module = sys.modules[type(network).__module__]
    layer = type("Gone", (nn.Module,), {"__module__": module.__name__, "__qualname__": "Gone"})
    monkeypatch.setattr(module, "Gone", layer, raising=False)
    for each in network.modules():
        if type(each).__name__ in ("Attention", "Residual", "ConvNorm"):
            each.__class__ = layer
    torch.save(network, tmp_path / "network.pkl")
    archive = open_archive(tmp_path / "network.pkl")
    built = build_network(archive.root, archive, with_constructors=True)
    batch = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(built(batch), today(batch))


class OldNetwork(nn.Module):
    """Says that it is a network of timm; its weights are of none."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.default_cfg: dict[str, Any] = {}
        self.num_classes = classes
        self.kernel = nn.Conv2d(3, 8, 3)


@pytest.mark.slow
def test_a_network_with_weights_of_none_is_refused_in_little_time_and_memory():
    mend_torchvision()
    import timm

    families = sorted(older_layers._REBUILT, key=lambda name: -len(timm.list_models(module=name)))
    before, start = peak_megabytes(), time.process_time()
    with pytest.raises(UnsupportedLearnerError, match=rf"no {families[0]} of these weights"):
        rebuild(OldNetwork(10**9), f"timm.models.{families[0]}")
    assert time.process_time() - start < 5  # 2 s; more where the machine is busy
    assert peak_megabytes() - before < 100


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_a_file_has_one_network_that_is_built_by_a_constructor(tmp_path, monkeypatch):
    built: list[nn.Module] = []
    monkeypatch.setattr(network, "rebuild", lambda old, _: built.append(old) or nn.Identity())
    monkeypatch.setattr(OldNetwork, "__module__", "timm.models.pit")
    monkeypatch.setattr(sys.modules["timm.models.pit"], "OldNetwork", OldNetwork, raising=False)
    torch.save(nn.Sequential(OldNetwork(), OldNetwork()), tmp_path / "network.pkl")
    archive = open_archive(tmp_path / "network.pkl")
    with pytest.raises(UnsupportedLearnerError, match="holds several of an older timm"):
        build_network(archive.root, archive, with_constructors=True)
    assert len(built) == 1


def test_shapes_without_data_are_those_with_data():
    mend_torchvision()
    import timm

    with torch.device("meta"), older_layers._ShapesOnly():
        shapes = older_layers._shapes(timm.create_model("pit_ti_224").state_dict())
    assert shapes == older_layers._shapes(timm.create_model("pit_ti_224").state_dict())


def test_a_network_with_another_number_is_not_built_by_a_constructor():
    network = older("pit_ti_224")
    network.norm.eps = 0.1
    with pytest.raises(UnsupportedLearnerError, match="no pit of these weights"):
        rebuild(network, "timm.models.pit")


def test_a_network_that_computes_something_else_today_is_not_built_by_a_constructor():
    network = older("poolformer_s12")
    with pytest.raises(UnsupportedLearnerError, match="no metaformer of these weights"):
        rebuild(network, "timm.models.metaformer")


def test_a_parameter_that_a_class_no_longer_knows_is_refused():
    from timm.models.vision_transformer import VisionTransformer

    network = VisionTransformer(32, 8, embed_dim=8, depth=1, num_heads=2, num_classes=3)
    network.dist_token = nn.Parameter(torch.zeros(1, 1, 8))
    with pytest.raises(UnsupportedLearnerError, match=r"'dist_token'.*train it again with today's"):
        complete(network)


def test_a_layer_that_a_class_no_longer_knows_is_refused():
    from timm.models.vision_transformer import VisionTransformer

    network = VisionTransformer(32, 8, embed_dim=8, depth=1, num_heads=2, num_classes=3).eval()
    check_layers_used(network, BATCH)
    network.pre_logits = nn.Linear(8, 8)
    with pytest.raises(UnsupportedLearnerError, match="VisionTransformer had a layer 'pre_logits'"):
        check_layers_used(network, BATCH)


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


@pytest.mark.slow
def test_names_are_looked_up_without_importing_their_modules():
    script = (
        "import sys; from icon_classifier.conversion.older_layers import is_defined\n"
        "assert is_defined('timm.layers.conv2d_same', 'Conv2dSame')\n"
        "assert not is_defined('timm.layers.conv2d_same', 'Tensor')\n"
        "assert not {'torchvision', 'fastai', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
