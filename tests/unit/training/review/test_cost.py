import re

import pytest
import torch

from icon_classifier.dataset.recipes import Training
from icon_classifier.training.pretrained import Pretrained
from icon_classifier.training.review.cost import describe_cost
from tests.support.learners import TINY


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cost_names_the_machine_and_what_takes_longer() -> None:
    import timm

    half = (0.5, 0.5, 0.5)
    network = timm.create_model(TINY, pretrained=False).eval()
    tiny = Pretrained(TINY, "random weights", network, half, half)
    training = Training(image_size=448)

    little = describe_cost(training, tiny, photos=1000, compare=False, lessons=False)
    everything = describe_cost(training, tiny, photos=1000, compare=True, lessons=True)

    duration = r"\d+ (s|min)"
    assert re.fullmatch(
        rf"No GPU, \d+ cores: about {duration} for the features of 1000 photos, "
        "and half a minute for the rest.",
        little,
    )
    assert re.search(rf"{duration} for fine-tuning, {duration} for the lessons", everything)
