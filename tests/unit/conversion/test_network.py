"""Networks are built from their parsed pickles, layer by layer; nothing else is built."""

from __future__ import annotations

import functools
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from icon_classifier.conversion.archive import open_archive
from icon_classifier.conversion.network import (
    AdaptiveConcatPool2d,
    Flatten,
    Placeholder,
    TimmBody,
    build_network,
)
from icon_classifier.conversion.unpickler import Global, Object
from icon_classifier.errors import ConversionError, UnsupportedLearnerError
from tests.support import learners


def rebuilt(network: Any, folder: Path) -> nn.Module:
    """Save a network and build it from the file."""
    torch.save(network, folder / "network.pkl")
    archive = open_archive(folder / "network.pkl")
    return build_network(archive.root, archive)


def test_a_network_has_the_same_layers_and_outputs(tmp_path):
    network = nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), act=nn.SiLU(inplace=True))
    )
    network(torch.randn(2, 3, 8, 8))  # changes the statistics of the norm
    built = rebuilt(network, tmp_path)
    batch = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(built(batch), network.eval()(batch))
    assert list(built._modules) == ["conv", "norm", "act"]
    assert not built.training
    assert not any(parameter.requires_grad for parameter in built.parameters())


def test_shared_layers_stay_shared(tmp_path):
    layer = nn.Linear(2, 2)
    built = rebuilt(nn.Sequential(layer, layer), tmp_path)
    assert built[0] is built[1]


def test_half_precision_and_views_become_float32_tensors(tmp_path):
    network = nn.Linear(3, 2).half()
    network.weight = nn.Parameter(torch.arange(12.0).half().reshape(3, 4).T[1:3])
    built = rebuilt(network, tmp_path)
    assert built.weight.dtype is torch.float32
    assert built.weight.tolist() == [[1, 5, 9], [2, 6, 10]]


def test_a_partial_of_a_layer_is_built(tmp_path):
    network = nn.Sequential()
    network.make = functools.partial(nn.Linear, 2, bias=False)
    built = rebuilt(network, tmp_path)
    assert built.make(3).weight.shape == (3, 2)
    assert built.make(3).bias is None


def test_the_replacements_compute_what_fastais_layers_compute():
    learners.import_fastai()
    from fastai import layers
    from fastai.vision.learner import TimmBody as TheirTimmBody

    class Body(nn.Module):
        @property
        def default_cfg(self) -> dict[str, Any]:
            return {"pool_size": (1, 1)}

        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    batch = torch.randn(2, 3, 4, 5)
    for theirs, replacement in [
        (layers.AdaptiveConcatPool2d(), AdaptiveConcatPool2d),
        (layers.Flatten(), Flatten),
        (layers.Flatten(full=True), Flatten),
        (TheirTimmBody(Body()), TimmBody),
    ]:
        ours = object.__new__(replacement)
        ours.__setstate__(theirs.__dict__)
        torch.testing.assert_close(ours(batch), theirs(batch))


def test_other_layers_of_fastai_are_imported(tmp_path):
    learners.import_fastai()
    from fastai.layers import SigmoidRange

    built = rebuilt(nn.Sequential(SigmoidRange(0, 5)), tmp_path)
    torch.testing.assert_close(built(torch.zeros(2)), torch.full((2,), 2.5))


def test_a_value_that_is_not_a_layer_raises_when_it_is_called(tmp_path):
    network = nn.TransformerEncoderLayer(4, 2, 4, activation=pickle.dumps)
    built = rebuilt(network, tmp_path)
    with pytest.raises(UnsupportedLearnerError, match=r"uses pickle\.dumps, which is not"):
        built(torch.zeros(1, 1, 4))


def mine(*_: object) -> None:
    """Stand for a function of a notebook that is left on a layer."""


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("hook", [print, mine], ids=["print", "mine"])
def test_a_hook_that_may_change_outputs_is_refused_by_its_name(register, hook, tmp_path):
    network = nn.Sequential(nn.ReLU())
    getattr(network, register)(hook)
    with pytest.raises(UnsupportedLearnerError, match=rf"hook \(.*{hook.__name__}.*call remove"):
        rebuilt(network, tmp_path)


def test_a_hook_of_training_or_saving_is_dropped(tmp_path):
    network = nn.Sequential(nn.ReLU())
    network.register_state_dict_post_hook(mine)
    network.register_full_backward_hook(mine)
    built = rebuilt(network, tmp_path)
    assert not built._state_dict_hooks
    assert not built._backward_hooks


@pytest.mark.parametrize(
    "name",
    [
        Global("torch.fx.graph_module", "GraphModule"),
        Global("torch.jit._script", "ScriptModule"),
        Global("torchvision.models.feature_extraction", "DualGraphModule"),
        Global("torch.nn.modules.module", "_IncompatibleKeys"),
        Global("fastai.learner", "Learner"),
        Global("fastai.torch_core", "TensorBase"),
        Global("torch.nn.modules.conv", "Tensor"),
        Global("os", "system"),
    ],
)
def test_other_classes_are_not_instantiated(name, tiny_export):
    symbol = Object(name, (), {"training": False})
    with pytest.raises(UnsupportedLearnerError, match=r"is not a layer of|was traced"):
        build_network(symbol, open_archive(tiny_export))


def test_a_unet_is_refused_with_what_to_train_instead(tiny_export):
    symbol = Object(Global("fastai.vision.models.unet", "DynamicUnet"), (), {"training": False})
    with pytest.raises(UnsupportedLearnerError, match=r"is a unet .*; train a vision_learner"):
        build_network(symbol, open_archive(tiny_export))


def test_a_function_of_torch_is_refused_with_the_layer_to_use(tmp_path):
    learners.import_fastai()
    from fastai.layers import Lambda

    with pytest.raises(UnsupportedLearnerError, match=r"calls relu of torch.*nn\.ReLU\(\)"):
        rebuilt(nn.Sequential(Lambda(torch.relu)), tmp_path)(torch.zeros(1))


def test_layers_that_are_in_more_places_than_torch_can_visit_are_refused(tmp_path):
    pair = [nn.Identity(), nn.Identity()]
    for _ in range(60):
        pair = [nn.Sequential(*pair), nn.Sequential(*pair)]
    network = nn.Module()
    network._modules = dict(zip("ab", pair, strict=True))
    with pytest.raises(UnsupportedLearnerError, match="more than 100,000 layers"):
        rebuilt(network, tmp_path)


def test_a_view_beyond_its_storage_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "network.pkl")
    archive = open_archive(tmp_path / "network.pkl")
    data = archive.root.state["_parameters"]["weight"].args[0]
    data.args = (data.args[0], 1, *data.args[2:])
    with pytest.raises(ConversionError, match="out of bounds"):
        build_network(archive.root, archive)


def test_layers_without_attributes_are_refused(tiny_export):
    symbol = Object(Global("torch.nn.modules.linear", "Linear"), (2, 2))
    with pytest.raises(ConversionError, match="no attributes"):
        build_network(symbol, open_archive(tiny_export))


def test_a_placeholder_names_what_it_stands_for():
    with pytest.raises(UnsupportedLearnerError, match=r"uses a\.b"):
        Placeholder("a.b")(1, x=2)


def test_tuples_are_built_once(tmp_path):
    shared: Any = (1.0,)
    for _ in range(60):
        shared = (shared, shared)
    network = nn.Identity()
    network.shared = shared
    assert rebuilt(network, tmp_path).shared[0][1][0] is not None


def test_tensors_with_more_elements_than_their_storage_are_refused(tmp_path):
    network = nn.Identity()
    network.zeros = torch.zeros(1).expand(10**9)
    with pytest.raises(ConversionError, match="more elements than its storage"):
        rebuilt(network, tmp_path)


def test_tensors_of_a_subclass_are_not_mixed_up(tmp_path):
    learners.import_fastai()
    from fastai.torch_core import TensorImage

    network = nn.Identity()
    network.tensors = [TensorImage(torch.full((2,), float(i))) for i in range(20)]
    built = rebuilt(network, tmp_path)
    assert [tensor[0].item() for tensor in built.tensors] == list(range(20))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile
@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        pytest.param(torch.compile, marks=pytest.mark.slow),
    ],
)
def test_a_wrapped_network_is_unwrapped(tmp_path, wrap):
    built = rebuilt(wrap(nn.Sequential(nn.ReLU())), tmp_path)
    assert [type(layer) for layer in built] == [nn.ReLU]


def test_a_wrapper_that_holds_itself_is_refused(tiny_export):
    wrapper = Object(Global("torch.nn.parallel.data_parallel", "DataParallel"), (), {})
    wrapper.state["_modules"] = {"module": wrapper}
    with pytest.raises(UnsupportedLearnerError, match="DataParallel"):
        build_network(wrapper, open_archive(tiny_export))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.weight_norm])
def test_a_weight_that_a_norm_computes_is_computed(tmp_path, norm):
    network = nn.Sequential(norm(nn.Conv2d(3, 4, 3)))
    batch = torch.randn(2, 3, 8, 8)
    network(batch)
    built = rebuilt(network, tmp_path)
    torch.testing.assert_close(built(batch), network.eval()(batch))


def test_a_class_of_the_notebook_is_refused_by_name(tiny_export):
    symbol = Object(Global("__main__", "MyNet"), (), {"training": False})
    with pytest.raises(UnsupportedLearnerError, match=r"uses __main__\.MyNet.*nn\.Sequential"):
        build_network(symbol, open_archive(tiny_export))


def test_a_traced_network_is_refused_with_what_to_do(tmp_path):
    network = torch.fx.symbolic_trace(nn.Sequential(nn.ReLU()))
    with pytest.raises(UnsupportedLearnerError, match=r"traced or quantized; use learn\.export"):
        rebuilt(network, tmp_path)


def test_hooks_of_fastai_that_store_activations_are_left_out(tmp_path):
    learners.import_fastai()
    from fastai.callback.hook import hook_output

    network = nn.Sequential(nn.ReLU())
    hook_output(network[0])
    batch = torch.randn(1, 3)
    torch.testing.assert_close(rebuilt(network, tmp_path)(batch), network(batch))
