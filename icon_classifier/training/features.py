"""What a frozen network sees in photos, computed once.

A probe looks at nothing else, so each photo is decoded once, shrunk once, and goes through the
network once; what was seen can be kept for the next run. ONNX Runtime does that in a third of
torch's time on a CPU, one photo at a time on each core, which keeps the network's maps in the
core's cache; with a GPU torch does it.
"""

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image
from tqdm.auto import tqdm

from icon_classifier.conversion.padding import with_fixed_padding
from icon_classifier.conversion.torch_setup import import_fastai
from icon_classifier.errors import DatasetError, ImageError, TrainingError
from icon_classifier.images import read_image_file
from icon_classifier.model.pipeline import Resize
from icon_classifier.training.feature_cache import Looked, digests
from icon_classifier.training.pretrained import Pretrained
from icon_classifier.training.probe import Prior

import_fastai()

import torch  # noqa: E402
from torch import nn  # noqa: E402

Floats = npt.NDArray[np.float32]
Method = Literal["crop", "squish", "pad"]
View = Literal["plain", "mirror"]


class _Pooled(nn.Module):
    """A body and an average over its maps, (N, 3, H, W) -> (N, F); pixels of 0 to 255 go in."""

    def __init__(self, body: nn.Module, pretrained: Pretrained, pool: bool = True) -> None:
        super().__init__()
        self.body, self.pool = body, pool
        # (3,) -> (1, 3, 1, 1)
        self.mean = 255 * torch.tensor(pretrained.mean)[None, :, None, None]
        self.std = 255 * torch.tensor(pretrained.std)[None, :, None, None]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Run it."""
        maps: torch.Tensor = self.body((pixels - self.mean) / self.std)
        return maps.mean((2, 3)) if self.pool else maps


def first_maps(
    paths: Sequence[Path],
    first: nn.Module,
    pretrained: Pretrained,
    *,
    size: int,
    method: Method = "crop",
    progress: bool = True,
) -> Floats:
    """Compute what the first stages of a body give for photos, (N, c, h, w).

    Parameters and errors are those of :func:`pooled_features`.
    """
    network = _Pooled(first, pretrained, pool=False).eval()
    return np.stack(_look_at(list(paths), network, size, method, "plain", progress))


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
        A Learner's body; gives maps of shape (N, F, h, w).
    pretrained : Pretrained
        Says how pixels are normalised.
    size : int
        Side of the square that the network sees (pixels).
    method : {"crop", "squish", "pad"}
        How a photo is brought to that square: fastai's ``Resize``.
    view : {"plain", "mirror"}
        The photo as the page shows it to the network, or its mirror image.
    cache : Path, optional
        A folder to keep features in: photos that are known from an earlier run are not looked at.
    progress : bool
        Show a bar.

    Returns
    -------
    numpy.ndarray
        float32, shape (N, F).

    Raises
    ------
    DatasetError
        If a photo cannot be read.
    TrainingError
        If the body gives no maps.
    """
    network = _Pooled(body, pretrained).eval()
    try:
        names = digests(paths)
    except OSError as error:
        raise DatasetError(f"{error.filename} cannot be read: {error.strerror}") from error
    looked = Looked(cache, _how(network, size, method, view)) if cache is not None else None
    known = looked.read() if looked is not None else {}
    missing = {name: path for name, path in zip(names, paths, strict=True) if name not in known}
    if missing:
        seen = _look_at(list(missing.values()), network, size, method, view, progress)
        known |= dict(zip(missing, seen, strict=True))
    if looked is not None:
        looked.write({name: known[name] for name in names})
    return np.stack([known[name] for name in names])


def _how(network: _Pooled, size: int, method: Method, view: View) -> str:
    """Write down all that features depend on beside the photo."""
    weights = hashlib.sha256()
    for name, value in network.state_dict().items():
        weights.update(name.encode())
        weights.update(value.detach().cpu().numpy().tobytes())
    by = "torch" if torch.cuda.is_available() else onnxruntime.__version__
    statistics = network.mean.flatten().tolist(), network.std.flatten().tolist()
    return repr((weights.hexdigest(), statistics, size, method, view, by, torch.__version__))


def _look_at(
    paths: Sequence[Path],
    network: _Pooled,
    size: int,
    method: Method,
    view: View,
    progress: bool,
) -> list[Floats]:
    """Look at photos, one on each core at a time; features of shape (F,) each."""
    resize = Resize((size, size), method)
    run = _runner(network, size)

    def look(path: Path) -> Floats:
        try:
            image = resize(read_image_file(path))
        except ImageError as error:
            raise DatasetError(f"{path} cannot be read: {error}; clean the photos first") from error
        if view == "mirror":
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        # (H, W, 3) -> (3, H, W)
        pixels = np.asarray(image, np.float32).transpose(2, 0, 1)
        return np.asarray(run(np.ascontiguousarray(pixels)[None])[0])

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        seen = pool.map(look, paths)
        bar = tqdm(seen, total=len(paths), desc="looking at photos", disable=not progress)
        return list(bar)


def _runner(network: nn.Module, size: int) -> Callable[[Floats], Floats]:
    if torch.cuda.is_available():
        network = network.cuda()
        for name in ("mean", "std"):
            setattr(network, name, getattr(network, name).cuda())

        def by_torch(pixels: Floats) -> Floats:
            with torch.inference_mode():
                return np.asarray(network(torch.from_numpy(pixels).cuda()).cpu().numpy())

        return by_torch
    file = io.BytesIO()
    sample = torch.zeros(1, 3, size, size)
    try:
        network = with_fixed_padding(network, sample)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter by tracing is deprecated, and exact here
            torch.onnx.export(network, (sample,), file, dynamo=False)  # type: ignore[arg-type]
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise TrainingError(f"this network gives no maps to look at: {error}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # photos are looked at side by side instead
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda pixels: np.asarray(session.run(None, {name: pixels})[0])


def prior_of(pretrained: Pretrained, body: nn.Module) -> Prior | None:
    """Find the network's own classifier of the features that a probe sees.

    Returns
    -------
    Head or None
        None where no linear layer turns those very features into the network's answers.
    """
    sample = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = body(sample).mean((2, 3))
        wanted = pretrained.network(sample)
        for layer in reversed(list(pretrained.network.modules())):
            if isinstance(layer, nn.Linear) and layer.in_features == features.shape[1]:
                came = layer(features)
                if came.shape == wanted.shape and torch.allclose(came, wanted, atol=1e-3):
                    weight = layer.weight.detach().numpy().copy()
                    bias = np.zeros(len(weight), np.float32)
                    if layer.bias is not None:
                        bias = layer.bias.detach().numpy().copy()
                    return Prior(weight, bias)
    return None
