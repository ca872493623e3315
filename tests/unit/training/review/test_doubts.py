from pathlib import Path

import numpy as np

from icon_classifier.training.review.doubts import find_doubts

VOCAB = ["cat", "dog"]
PATHS = [Path(f"photos/{VOCAB[target]}/{i}.png") for i, target in enumerate((0, 0, 0, 1))]
TARGETS = np.array([0, 0, 0, 1])


def test_improbable_label_comes_first_and_sure_answers_are_left_out() -> None:
    logits = [[5.0, 0.0], [0.0, 0.5], [0.5, 0.0], [5.0, 0.0]]

    found = find_doubts(PATHS, TARGETS, VOCAB, logits)

    assert [doubt.path.name for doubt in found] == ["3.png", "1.png", "2.png"]
    assert [doubt.wrong for doubt in found] == [True, True, False]
    assert [doubt.answer for doubt in found] == ["cat", "dog", "cat"]
    assert str(found[0]) == "dog is taken for cat, 99%"
    assert str(found[2]) == "cat, only 62% sure"


def test_temperature_decides_what_is_doubtful() -> None:
    logits = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])

    assert len(find_doubts(PATHS, TARGETS, VOCAB, logits)) == 4
    assert find_doubts(PATHS, TARGETS, VOCAB, logits, temperature=0.1) == []
