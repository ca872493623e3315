from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from icon_classifier.training.evaluation import evaluate
from icon_classifier.training.model_card import CARD, Card, write_card


@pytest.fixture
def card() -> Card:
    logits = np.eye(3)[[0, 1, 2, 1]] * 4
    figures = evaluate(
        logits, [0, 1, 2, 0], ["black", "grizzly", "teddy"], scores=[1, 2, 3, 4], threshold=2
    )
    return Card(
        title="Grizzly, black or teddy bear",
        use="An exercise.",
        labels=("black", "grizzly", "teddy"),
        architecture="tf_efficientnet_lite0, packaged weights",
        data="329 photos of a folder.",
        fingerprint="ab" * 32,
        split="Five splits.",
        figures=figures,
        training={"seed": 42},
        versions={"fastai": "2.8.12"},
        date="2026-11-21",
    )


def test_card_holds_figures_warning_and_training(card: Card) -> None:
    text = card.to_markdown()
    for words in (
        "# Model card: Grizzly, black or teddy bear",
        "attribute of people",
        "Of 4 photos, 1 got a wrong label: 25.0 %",
        "95 % confidence interval",
        "| black | 1 of 2 | 1 of 1 |",
        "| grizzly | 1 of 1 | 1 of 2 |",
        "| black | 1 | 1 | 0 |",
        "expected calibration error",
        "trained on; 75.0 % of these photos are answered",
        "mean recall of the classes is 83.3 %",
        "ab" * 32,
        "- seed: 42",
        "fastai 2.8.12",
    ):
        assert words in text


def test_card_of_a_model_that_is_always_sure_says_so(card: Card) -> None:
    figures = replace(card.figures, accepted=None)
    assert 'never says "not sure"' in replace(card, figures=figures).to_markdown()


def test_text_of_the_recipe_is_escaped(card: Card) -> None:
    text = replace(card, use="A <script> of | [mine](x)\n# not a title").to_markdown()
    assert r"A \<script\> of \| \[mine\](x) \# not a title" in text
    assert r"3 of \<b\>x\_y." in replace(card, data="3 photos: 3 of <b>x_y.").to_markdown()


def test_card_is_the_only_file_written(card: Card, tmp_path: Path) -> None:
    path = write_card(card, tmp_path)
    assert path.read_text() == card.to_markdown()
    assert [file.name for file in tmp_path.iterdir()] == [CARD]


def test_authors_of_photos_are_credited(card: Card) -> None:
    lines = ["licence CC BY 2.0: 2 photos by *Anna*, <b>Zoë", "licence unknown: 7 photos"]

    text = replace(card, credits=lines).to_markdown()

    assert "\n- licence CC BY 2.0: 2 photos by \\*Anna\\*, \\<b\\>Zoë\n" in text
    assert "\n- licence unknown: 7 photos\n\n## Training\n" in text
