"""What the page says about its model, from the metadata of the model file."""

from __future__ import annotations

import html
from collections.abc import Iterator

from icon_classifier.model.info import ModelInfo
from icon_classifier.page import texts


def about(info: ModelInfo) -> str:
    """Return what a visitor should know of a model as HTML, folded behind a line.

    Labels may hold anything: they are escaped. What the model does not say of itself is left out.
    """
    paragraphs = "".join(f"<p>{html.escape(text)}</p>" for text in _sentences(info))
    return (
        f'<details class="ic-about"><summary>{texts.ABOUT["summary"]}</summary>'
        f"{paragraphs}</details>"
    )


def _sentences(info: ModelInfo) -> Iterator[str]:
    labels = ", ".join(map(texts.plain, info.labels))
    yield texts.ABOUT["classes"].format(count=len(info.labels), names=labels)
    match info.figures:
        case {
            "photos": int(photos),
            "error": int() | float() as error,
            "interval": [int() | float() as low, int() | float() as high],
        }:
            yield texts.ABOUT["error"].format(
                photos=photos,
                error=texts.percent(error),
                low=texts.percent(low),
                high=texts.percent(high),
            )
    trained = info.raw.get("trained")
    if isinstance(trained, str) and trained:
        yield texts.ABOUT["trained"].format(date=trained[:10])
    yield texts.ABOUT["limits"]
