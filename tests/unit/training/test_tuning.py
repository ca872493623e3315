from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from icon_classifier.dataset.recipes import Training
from icon_classifier.training.learners import load_photos
from icon_classifier.training.pretrained import Pretrained
from icon_classifier.training.probe import Head
from icon_classifier.training.training import train_probe
from icon_classifier.training.tuning import cross_tune, last_stage, tune
from tests.support.learners import TINY, draw_photos, quiet


def test_stages_in_sequence_compute_what_the_body_does() -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model(TINY, pretrained=False, num_classes=0).eval()
    body = nn.Module()
    body.model = network
    body.forward = network.forward_features  # type: ignore[method-assign]
    stages = last_stage(body)
    assert stages is not None
    pixels = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        expected = network.forward_features(pixels)
        torch.testing.assert_close(stages.last(stages.first(pixels)), expected)


def test_sequence_is_split_before_its_last_stage() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 5, 3)))
    stages = last_stage(body)
    assert stages is not None
    assert [tuple(each.shape) for each in stages.last.parameters()] == [(5, 4, 3, 3), (5,)]


@pytest.mark.parametrize("body", [nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())])
def test_body_without_a_last_stage_is_not_split(body: nn.Module) -> None:
    assert last_stage(body) is None


def patterns(count: int) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """A stage that cannot distinguish two patterns before it is tuned, and maps of them."""
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU()).eval()
    random = np.random.default_rng(0)
    targets = np.arange(count) % 2
    maps = random.normal(0, 0.3, (count, 2, 4, 4)).astype(np.float32)
    maps[np.arange(count), targets] += 1
    return stage, maps, targets


def test_tuning_learns_without_changing_the_original_or_batch_statistics() -> None:
    stage, maps, targets = patterns(600)
    before = {name: value.clone() for name, value in stage.state_dict().items()}
    start = Head(np.zeros((2, 4), np.float32), np.zeros(2, np.float32))
    tuned, head = tune(stage, start, maps, targets)
    for name, value in stage.state_dict().items():
        assert torch.equal(value, before[name])
    for name, value in tuned.state_dict().items():
        assert torch.equal(value, before[name]) == ("running" in name or "num_" in name)
    losses = []
    for one, other in ((stage, start), (tuned, head)):
        with torch.inference_mode():
            features = one(torch.from_numpy(maps)).mean((2, 3)).numpy()
        logits = torch.from_numpy(other(features))
        losses.append(float(nn.functional.cross_entropy(logits, torch.from_numpy(targets))))
    assert losses[1] < losses[0]
    again = tune(stage, start, maps, targets)[1]
    np.testing.assert_array_equal(again.weight, head.weight)


def test_photo_is_predicted_by_a_stage_tuned_without_it() -> None:
    stage, maps, targets = patterns(40)
    heads = [Head(np.full((2, 4), n, np.float32), np.zeros(2, np.float32)) for n in (1, 2)]
    folds = np.arange(40) // 20
    logits = cross_tune(stage, heads, maps, targets, folds, progress=False)
    for fold in (0, 1):
        tuned, head = tune(stage, heads[fold], maps[folds != fold], targets[folds != fold])
        with torch.inference_mode():
            features = tuned(torch.from_numpy(maps[folds == fold])).mean((2, 3)).numpy()
        np.testing.assert_allclose(logits[folds == fold], head(features), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_validation_decides_whether_tuning_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import timm

    torch.manual_seed(0)
    half = (0.5, 0.5, 0.5)
    network = Pretrained(TINY, "random weights", timm.create_model(TINY).eval(), half, half)
    options = Training(architecture=TINY, image_size=32, batch_size=4, tune=True)
    photos = load_photos(draw_photos(tmp_path), options, groups=list(range(18)))
    probe = train_probe(photos, options, network, progress=False)
    assert "Gentle fine-tuning:" in capsys.readouterr().out
    kept = probe.tuning.startswith("last stage, kept")
    assert kept or probe.tuning.startswith("tried and not kept")
    with quiet():
        plain = train_probe(photos, replace(options, tune=False), network, progress=False)
    assert plain.tuning == "not tried"
    same = all(
        torch.equal(mine, theirs)
        for mine, theirs in zip(
            probe.learn.model[0].parameters(), plain.learn.model[0].parameters(), strict=True
        )
    )
    assert same != kept
    assert probe.figures.errors <= plain.figures.errors
