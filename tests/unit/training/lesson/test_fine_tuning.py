from pathlib import Path

import pytest
import torch

from icon_classifier.dataset.recipes import Training
from icon_classifier.training.learners import load_photos
from icon_classifier.training.lesson.fine_tuning import plain_learner
from icon_classifier.training.pretrained import Pretrained
from tests.support.learners import TINY, draw_photos, quiet


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("side", "asked", "expected"), [(448, 8, 4), (224, 8, 4), (64, 8, 8)])
def test_batch_of_large_photos_is_small_without_a_gpu(
    tmp_path: Path, side: int, asked: int, expected: int
) -> None:
    import timm

    options = Training(architecture=TINY, image_size=side, batch_size=asked, valid_share=0.4)
    half = (0.5, 0.5, 0.5)
    network = timm.create_model(TINY, pretrained=False).eval()
    photos = load_photos(draw_photos(tmp_path), options, groups=list(range(18)))

    with quiet():
        learn = plain_learner(photos, options, Pretrained(TINY, "random", network, half, half))

    assert learn.dls.train.bs == expected
