import itertools
import operator
from pathlib import Path
from typing import Any

import pytest
import torch

from icon_classifier.dataset.recipes import Training
from icon_classifier.training.learners import load_photos
from icon_classifier.training.lesson.fine_tuning import find_rate, plain_learner
from icon_classifier.training.pretrained import Pretrained
from tests.support.learners import TINY, draw_photos, quiet


def make_plain(folder: Path, options: Training) -> Any:
    import timm

    half = (0.5, 0.5, 0.5)
    network = timm.create_model(TINY, pretrained=False).eval()
    photos = load_photos(draw_photos(folder), options, groups=list(range(18)))
    with quiet():
        return plain_learner(photos, options, Pretrained(TINY, "random", network, half, half))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("side", "asked", "expected"), [(448, 8, 4), (224, 8, 4), (64, 8, 8)])
def test_batch_of_large_photos_is_small_without_a_gpu(
    tmp_path: Path, side: int, asked: int, expected: int
) -> None:
    options = Training(architecture=TINY, image_size=side, batch_size=asked, valid_share=0.4)

    assert make_plain(tmp_path, options).dls.train.bs == expected


def test_rate_is_fastais_own_where_the_finder_stops_too_early(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learn = make_plain(tmp_path, Training(architecture=TINY, image_size=32, batch_size=4))
    scale = itertools.accumulate(itertools.repeat(100.0), operator.mul)
    loss = learn.loss_func
    learn.loss_func = lambda *batch: next(scale) * loss(*batch)  # diverges from the first batch on

    with learn.no_bar():
        assert find_rate(learn, show_plot=False) == 2e-3
    assert "lr_find stopped too early" in capsys.readouterr().out
