from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from icon_classifier.errors import DatasetError, TrainingError
from icon_classifier.training.features import pooled_features
from icon_classifier.training.pretrained import Pretrained
from tests.support.learners import quiet


@pytest.fixture(scope="module")
def body() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU()).eval()


@pytest.fixture(scope="module")
def network(body: nn.Module) -> Pretrained:
    return Pretrained("tiny", "random weights", body, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    for index in range(3):
        pixels = random.integers(0, 255, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return sorted(tmp_path.glob("*.png"))


def compute(paths: list[Path], body: nn.Module, network: Pretrained, **more: object) -> np.ndarray:
    with quiet():
        return pooled_features(paths, body, network, size=30, progress=False, **more)  # type: ignore[arg-type]


def test_features_are_those_of_torch(
    paths: list[Path], body: nn.Module, network: Pretrained
) -> None:
    for view, step in (("plain", 1), ("mirror", -1)):
        seen = compute(paths, body, network, view=view)
        for path, row in zip(paths, seen, strict=True):
            pixels = np.asarray(Image.open(path).crop((0, 5, 30, 35)), np.float32)[:, ::step] / 255
            inputs = torch.from_numpy((pixels - network.mean) / network.std).float()
            expected = body(inputs.permute(2, 0, 1)[None]).mean((2, 3))[0]
            np.testing.assert_allclose(row, expected.detach().numpy(), atol=1e-4)


def test_cached_photos_are_not_computed_again(
    paths: list[Path], body: nn.Module, network: Pretrained, tmp_path: Path
) -> None:
    cache = tmp_path / "features"
    first = compute(paths[:2], body, network, cache=cache)
    (file,) = cache.iterdir()
    # A changed value in the cache is returned, and only the third photo is computed.
    with np.load(file) as stored:
        digests, kept = stored["digests"], stored["features"].copy()
    kept[0] = 7
    np.savez(file, digests=digests, features=kept)
    compute(paths[1:], body, network, cache=cache)  # drops no other photo
    second = compute(paths, body, network, cache=cache)
    np.testing.assert_array_equal(second[0], np.full(5, 7))
    np.testing.assert_array_equal(second[1], first[1])
    np.testing.assert_array_equal(second, compute(paths, body, network, cache=cache))
    assert not np.array_equal(
        compute(paths, body, network, cache=cache, view="mirror")[0], second[0]
    )


def test_other_weights_are_not_read_from_the_cache(
    paths: list[Path], body: nn.Module, network: Pretrained, tmp_path: Path
) -> None:
    cache = tmp_path / "features"
    first = compute(paths, body, network, cache=cache)
    torch.manual_seed(1)
    other = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU()).eval()
    assert not np.allclose(compute(paths, other, network, cache=cache), first)


def test_photo_that_cannot_be_read_is_named(
    paths: list[Path], body: nn.Module, network: Pretrained
) -> None:
    paths[1].write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"1\.png cannot be read"):
        compute(paths, body, network)
    paths[1].unlink()
    with pytest.raises(DatasetError, match=r"1\.png cannot be read"):
        compute(paths, body, network)


def test_body_without_maps_is_refused(paths: list[Path], network: Pretrained) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 30 * 30, 4)).eval()
    with pytest.raises(TrainingError, match="no maps"):
        compute(paths, flat, network)
