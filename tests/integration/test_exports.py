"""Whatever export.pkl a notebook of fastai wrote converts and answers like its Learner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icon_classifier.conversion.convert import convert
from icon_classifier.errors import UnsupportedLearnerError
from icon_classifier.images import read_image
from icon_classifier.model.session import Model
from tests.support import learners
from tests.support.exports.kinds import Notebook, learners_by_kind
from tests.support.exports.refused import REFUSED
from tests.support.pictures import encode, gradient

KINDS = learners_by_kind()


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    return Notebook(tmp_path_factory.mktemp("notebook"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return a wide and a tall picture: one larger than what a network sees, one smaller."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / "wide.png", folder / "tall.png"]
    for path, size in zip(paths, [(200, 130), (40, 57)], strict=True):
        path.write_bytes(encode(gradient(size=size)))
    return paths


def predict(learn: Any, picture: Path) -> list[float]:
    """Return the probabilities of `Learner.predict`.

    It fails where the loss cannot decode, and does not take the softmax that such a loss implies.
    """
    learn.model.float()
    with learners.quiet(), learn.no_bar(), learn.no_logging():
        if hasattr(learn.loss_func, "decodes"):
            return learn.predict(picture)[2].tolist()
        outputs, _ = learn.get_preds(dl=learn.dls.test_dl([picture], num_workers=0))
    return outputs[0].softmax(-1).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_export_converts_and_answers_like_learner_predict(kind, notebook, pictures, tmp_path):
    with learners.quiet():
        learn = KINDS[kind](notebook)
    export = learners.export(learn, tmp_path)
    model = Model.load(convert(export))
    assert list(model.labels) == [str(label) for label in learn.dls.vocab]
    with learners.quiet():
        theirs = notebook.load_learner(export)
    for picture in pictures:
        ranking = dict(model.predict(read_image(picture.read_bytes())).ranking)
        ours = [ranking[label] for label in model.labels]
        tolerance = 1e-3 if kind.startswith("presizing") else 2e-5
        assert ours == pytest.approx(predict(theirs, picture), abs=tolerance)


@pytest.mark.parametrize("kind", REFUSED)
def test_other_learner_is_refused_in_words(kind, notebook, tmp_path):
    make, words = REFUSED[kind]
    with learners.quiet():
        export = learners.export(make(notebook), tmp_path)
    with pytest.raises(UnsupportedLearnerError) as refusal:
        convert(export)
    message = str(refusal.value)
    assert not [word for word in words if word not in message], message
    assert not (tmp_path / "export.onnx").exists()
