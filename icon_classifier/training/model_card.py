"""The model card: what a model is for, how good it is and its limits, next to its export.pkl.

After Mitchell et al. 2019, "Model Cards for Model Reporting": a reader who did not see the training
learns in a minute whether this model fits their purpose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icon_classifier.files import write_file
from icon_classifier.training.evaluation import Figures

CARD = "export.md"
"""Name of the card, in the folder of export.pkl."""

_WARNING = (
    "Do not use a picture classifier to infer who a person is, what they believe, feel or are "
    "worth, or any other attribute of people. It has learned what photos of its classes look like, "
    "nothing else."
)


@dataclass(frozen=True)
class Card:
    """Content of a model card.

    Attributes
    ----------
    title, use : str
        What the model distinguishes, and what it is meant for.
    labels : sequence of str
        Names of the classes.
    architecture : str
        Name of the network, and where its pretrained weights came from.
    data : str
        Where the photos came from, and how many.
    fingerprint : str
        SHA-256 over labels and contents of the photos.
    credits : sequence of str
        One line for each licence of the photos: how many have it, and their authors.
    split : str
        How photos were held out for evaluation.
    figures : Figures
        What was measured on them.
    training : mapping of str to str
        What else is needed to train it again: recipe, seed, epochs.
    versions : mapping of str to str
        Versions of the packages that were used.
    date : str
        ISO 8601.
    """

    title: str
    use: str
    labels: Sequence[str]
    architecture: str
    data: str
    fingerprint: str
    split: str
    figures: Figures
    training: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    credits: Sequence[str] = ()

    def to_markdown(self) -> str:
        """Return the card as Markdown."""
        return "\n".join(_lines(self)) + "\n"


def write_card(card: Card, folder: Path) -> Path:
    """Write the card into the folder of export.pkl.

    Returns
    -------
    Path
        The card.
    """
    return write_file(folder / CARD, card.to_markdown())


def add_evaluation(text: str, name: str, folder: Path) -> Path:
    """Add what was measured on other photos to the card, in place of what was on the same ones.

    Parameters
    ----------
    text : str
        Markdown without headings.
    name : str
        What the photos are called.
    folder : Path
        The folder of export.pkl; its card is made where there is none.

    Returns
    -------
    Path
        The card.
    """
    path = folder / CARD
    card = path.read_text("utf-8") if path.exists() else "# Model card\n"
    heading = f"## Measured on {plain(name)}"
    sections = re.split(r"(?m)^(?=## )", card)
    kept = [section for section in sections if section.splitlines()[:1] != [heading]]
    return write_file(path, "".join(kept).rstrip("\n") + f"\n\n{heading}\n\n{text.strip()}\n")


def _lines(card: Card) -> Iterator[str]:
    figures = card.figures
    low, high = figures.interval
    yield f"# Model card: {plain(card.title)}"
    yield ""
    yield f"Trained {card.date}." if card.date else ""
    yield ""
    yield "## What it is for"
    yield ""
    yield plain(card.use)
    yield ""
    yield f"It knows {len(card.labels)} classes: {', '.join(map(plain, card.labels))}."
    yield ""
    yield "## What it is not for"
    yield ""
    yield _WARNING
    yield ""
    yield "## How good it is"
    yield ""
    yield (
        f"Of {figures.photos} photos, {figures.errors} got a wrong label: "
        f"{_percent(figures.error)} (95 % confidence interval {_percent(low)} to "
        f"{_percent(high)}). The mean recall of the classes is {_percent(figures.mean_recall)}. "
        f"{card.split}"
    )
    yield ""
    yield "| class | recall | precision |"
    yield "| --- | --- | --- |"
    for label, *cells in class_rows(figures):
        yield f"| {plain(label)} | {' | '.join(cells)} |"
    yield ""
    yield f"| true \\ predicted | {' | '.join(map(plain, card.labels))} |"
    yield "| --- " * (len(card.labels) + 1) + "|"
    for label, row in zip(card.labels, figures.confusion, strict=True):
        yield f"| {plain(label)} | {' | '.join(map(str, row))} |"
    yield ""
    yield (
        f"Its probabilities are off by {_percent(figures.calibration_after)} on average (expected "
        "calibration error)."
    )
    yield ""
    if figures.accepted is None:
        yield 'It never says "not sure": every photo gets one of its labels.'
    else:
        yield (
            'It says "not sure" of a photo that is unlike those it was trained on; '
            f"{_percent(figures.accepted)} of these photos are answered."
        )
    yield ""
    yield "## Limits"
    yield ""
    yield (
        "The figures hold for photos like those that it was trained and evaluated on. Drawings, "
        "other kinds of photos, several things in one photo and things between two classes were "
        "not tested. A high probability is not proof."
    )
    yield ""
    yield "## Data"
    yield ""
    yield f"{plain(card.data)} Fingerprint: `{card.fingerprint}`."
    yield ""
    if card.credits:
        yield from (f"- {plain(line)}" for line in card.credits)
        yield ""
    yield "## Training"
    yield ""
    yield f"- network: {plain(card.architecture)}"
    yield from (f"- {name}: {plain(str(value))}" for name, value in card.training.items())
    versions = ", ".join(f"{name} {version}" for name, version in card.versions.items())
    yield f"- versions: {versions}"


def class_rows(figures: Figures) -> Iterator[tuple[str, str, str]]:
    """Yield each class, how many of its photos are right, and how many of its answers are."""
    answers = map(sum, zip(*figures.confusion, strict=True))
    for at, (entry, answered) in enumerate(zip(figures.classes, answers, strict=True)):
        right = figures.confusion[at][at]
        yield entry.label, f"{right} of {entry.photos}", f"{right} of {answered}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def plain(text: str) -> str:
    """Escape a text that a user typed, so that it is not read as Markdown or HTML."""
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
