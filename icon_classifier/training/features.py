"""Compute the features that a frozen network extracts from photos.

A probe needs nothing else, so each photo is decoded, resized and run through the network once; the
features can be cached for the next run. ONNX Runtime does that in a third of torch's time on a CPU,
with one photo at a time on each core, which keeps the network's maps in the core's cache; with a
GPU torch does it.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image
from rich.console import Console
from rich.progress import track

from icon_classifier.conversion.graph import to_onnx
from icon_classifier.conversion.padding import with_fixed_padding
from icon_classifier.errors import (
    DatasetError,
    ImageError,
    TrainingError,
    UnsupportedLearnerError,
)
from icon_classifier.files import sha256_of
from icon_classifier.images import read_image_file
from icon_classifier.model.pipeline import Resize
from icon_classifier.system.memory import trim_heap, usable_cores
from icon_classifier.system.torch_setup import import_fastai, one_thread
from icon_classifier.training.feature_cache import FeatureCache
from icon_classifier.training.pretrained import Pretrained
from icon_classifier.training.probe import Prior

import_fastai()

import torch  # noqa: E402
from torch import nn  # noqa: E402

Floats = npt.NDArray[np.float32]
Method = Literal["crop", "squish", "pad"]
View = Literal["plain", "mirror"]


class _Extractor(nn.Module):
    """A body and an average over its maps, (N, 3, H, W) -> (N, F); pixels are 0 to 255."""

    def __init__(self, body: nn.Module, pretrained: Pretrained) -> None:
        super().__init__()
        self.body = body
        # (3,) -> (1, 3, 1, 1)
        self.mean = 255 * torch.tensor(pretrained.mean)[None, :, None, None]
        self.std = 255 * torch.tensor(pretrained.std)[None, :, None, None]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Run the body."""
        maps: torch.Tensor = self.body((pixels - self.mean) / self.std)
        return maps.mean((2, 3))


def pooled_features(
    paths: Sequence[Path],
    body: nn.Module,
    pretrained: Pretrained,
    *,
    size: int,
    method: Method = "crop",
    view: View = "plain",
    cache: Path | None = None,
    progress: bool = True,
) -> Floats:
    """Compute the pooled features of photos.

    Parameters
    ----------
    paths : sequence of Path
        The photos.
    body : torch.nn.Module
        A Learner's body; returns maps of shape (N, F, h, w).
    pretrained : Pretrained
        Its statistics normalise the pixels.
    size : int
        Side of the square that the network sees (pixels).
    method : {"crop", "squish", "pad"}
        How a photo is brought to that square: fastai's ``Resize``.
    view : {"plain", "mirror"}
        The photo as the page passes it to the network, or its mirror image.
    cache : Path, optional
        A folder to keep features in; photos found there are not computed again.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    numpy.ndarray
        float32, shape (N, F).

    Raises
    ------
    DatasetError
        If a photo cannot be read.
    TrainingError
        If the body returns no maps.
    """
    network = _Extractor(body, pretrained).eval()
    try:
        digests = [sha256_of(path) for path in paths]
    except OSError as error:
        raise DatasetError(f"{error.filename} cannot be read: {error.strerror}") from error
    stored = FeatureCache(cache, _cache_key(network, size, method, view)) if cache else None
    features = stored.read() if stored else {}
    missing = {
        digest: path for digest, path in zip(digests, paths, strict=True) if digest not in features
    }
    if missing:
        computed = _extract(list(missing.values()), network, size, method, view, progress)
        features |= dict(zip(missing, computed, strict=True))
        if stored:  # with the photos that were not asked for: the next call may want all of them
            stored.write(features)
    return np.stack([features[digest] for digest in digests])


def _cache_key(network: _Extractor, size: int, method: Method, view: View) -> str:
    """Describe everything that features depend on except the photo."""
    weights = hashlib.sha256()
    for name, value in network.state_dict().items():
        weights.update(name.encode())
        weights.update(value.detach().cpu().numpy().tobytes())
    runtime = "torch" if torch.cuda.is_available() else onnxruntime.__version__
    statistics = network.mean.flatten().tolist(), network.std.flatten().tolist()
    return repr((weights.hexdigest(), statistics, size, method, view, runtime, torch.__version__))


def _extract(
    paths: Sequence[Path],
    network: _Extractor,
    size: int,
    method: Method,
    view: View,
    progress: bool,
) -> list[Floats]:
    """Run the network on photos, one at a time on each core; one array per photo."""
    resize = Resize((size, size), method)
    run = _make_runner(network, size)
    trim_heap()  # what compiling the network took, before the maps are added

    def extract(path: Path) -> Floats:
        try:
            image = resize(read_image_file(path))
        except ImageError as error:
            raise DatasetError(f"{path} cannot be read: {error}; clean the photos first") from error
        if view == "mirror":
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        # (H, W, 3) -> (3, H, W)
        pixels = np.asarray(image, np.float32).transpose(2, 0, 1)
        return np.asarray(run(np.ascontiguousarray(pixels)[None])[0])

    with ThreadPoolExecutor(usable_cores()) as pool:
        features = list(
            track(
                pool.map(extract, paths),
                "computing features",
                len(paths),
                console=Console(stderr=True),
                disable=not progress,
            )
        )
    trim_heap()  # what the network's maps took
    return features


def _make_runner(network: nn.Module, size: int) -> Callable[[Floats], Floats]:
    """Return a function that runs the network on pixels (1, 3, H, W), safe in several threads."""
    if torch.cuda.is_available():
        network = network.cuda()
        for name in ("mean", "std"):
            setattr(network, name, getattr(network, name).cuda())

        def run_on_gpu(pixels: Floats) -> Floats:
            with torch.inference_mode():
                return np.asarray(network(torch.from_numpy(pixels).cuda()).cpu().numpy())

        return run_on_gpu
    sample = torch.zeros(1, 3, size, size)
    try:
        with one_thread():
            model = to_onnx(with_fixed_padding(network, sample), sample, ["features"])
    except (
        UnsupportedLearnerError,
        RuntimeError,
        TypeError,
        ValueError,
        IndexError,
    ) as error:
        raise TrainingError(f"this network returns no maps: {error}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # photos are processed in parallel instead
    options.enable_cpu_mem_arena = False  # it keeps the memory of the largest size
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: np.asarray(session.run(None, {name: pixels})[0])


def prior_of(pretrained: Pretrained, body: nn.Module) -> Prior | None:
    """Find the network's own classifier of the features that a probe is fitted to.

    Returns
    -------
    Head or None
        None where no linear layer turns exactly these features into the network's outputs.
    """
    sample = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), one_thread():
        features = body(sample).mean((2, 3))
        expected = pretrained.network(sample)
        for layer in reversed(list(pretrained.network.modules())):
            if isinstance(layer, nn.Linear) and layer.in_features == features.shape[1]:
                actual = layer(features)
                if actual.shape == expected.shape and torch.allclose(actual, expected, atol=1e-3):
                    weight = layer.weight.detach().numpy().copy()
                    bias = np.zeros(len(weight), np.float32)
                    if layer.bias is not None:
                        bias = layer.bias.detach().numpy().copy()
                    return Prior(weight, bias)
    return None
