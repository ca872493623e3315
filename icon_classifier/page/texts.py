"""Every text of the page, in one place.

An error's message for a visitor is with its class in :mod:`icon_classifier.errors`. The texts of
the widgets' JavaScript are here too, and are sent to it as a dictionary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the web server needs the texts, and no ONNX Runtime
    from icon_classifier.model.session import Prediction

WORKING = "Classifying…"
UNEXPECTED = "Something went wrong here; please try again or choose another photo."

MAX_PHOTOS = 50
"""How many photos one drop may have, and one page may keep."""

DROP_TEXTS = {
    "region": "Add a photo",
    "invite": "Drop photos here, or paste them",
    "choose": "Choose photos",
    "another": "Another photo",
    "camera": "Camera",
    "shoot": "Take the photo",
    "close": "Close the camera",
    "viewfinder": "What the camera sees",
    "examples": "Or try one of these",
    "sole_example": "Or try this one",
    "example": "Try the example {name}",
    "preparing": "Preparing the photo…",
    "looking": "Looking at the photo…",
    "counting": "Looking at photo {index} of {count}…",
    "slow": "This is taking a while: the connection is slow or lost. Please wait, or reload.",
    "no_file": "That was not a photo; please save the photo on your device and drop it again.",
    "from_web": "That is where the photo is, not the photo itself: please save it, or copy it with "
    "“Copy image”, then drop or paste it here.",
    "too_many": f"That is a lot: only the first {MAX_PHOTOS} photos are taken.",
    "camera_denied": "The camera is not allowed; please allow it in the browser or choose a photo.",
    "camera_missing": "No camera was found; please choose a photo instead.",
}
"""The texts of the drop zone; words in braces are filled in by its JavaScript."""

OWN_BROWSER = "Answer in your own browser instead"
"""The link to the page's static site, where the server knows of one."""

BUSY = {
    "title": "Busy",
    "heading": "Just a moment",
    "reason": "As many people as this page can serve are here right now.",
    "retry": "This page tries again every {seconds} seconds; there is nothing you need to do.",
    "link": "Try again now",
}
"""The page that is served when there are as many visitors as fit; ``seconds`` is filled in."""

NOT_STARTED = "This page cannot be started at the moment."
"""The reason on that page when it is another one."""

ANSWER_TEXTS = {
    "region": "Answer",
    "preview": "Your photo",
    "bars": "Probability of each class",
    "more": "{count} more, each less likely",
    "heat": "Show where it looked",
    "heat_legend": "The brighter a spot, the more it counted towards “{label}”.",
    "table": "Your photos",
    "photo": "Photo",
    "file": "File",
    "answer": "Answer",
    "probability": "Probability",
    "unsure": "not sure",
    "closest": "closest: {label}",
    "csv": "Download as CSV",
    "csv_name": "answers.csv",
}
"""The texts of the answer; words in braces are filled in by its JavaScript."""

FEEDBACK_TEXTS = {
    "is_right": "Right or wrong?",
    "what": "What is it?",
    "right": "Right",
    "it_is": "It is …",
    "something_else": "something else",
    "consent": "If you answer, your photo is kept by whoever runs this page, to make the "
    "classifier better.",
    "undo": "Undo",
}
"""The texts beside an answer where the page asks whether it is right."""

FEEDBACK_ENOUGH = "Thank you, that is enough for one visit."
FEEDBACK_FULL = "Thank you, but no more photos can be kept here."
FEEDBACK_NOT_REMOVED = "This photo could not be removed; please tell whoever runs this page."

LINES = {
    "known": "Prediction: {label}; Probability: {probability}",
    "unsure": "Not sure: this does not look like {names}; closest: {label} ({probability}).",
}
"""The answer as one line; words in braces are filled in here and by the static site."""

SUMMARIES = {
    "all": "{count} photos answered.",
    "some": "{answered} of {count} photos answered; {failed} could not be read.",
}
"""The line above the answers for several photos; filled in here and by the static site."""

SITE_TEXTS = {
    "privacy": "Your photo does not leave this device.",
    "no_script": "This page needs JavaScript: it classifies photos in your own browser. Please "
    "allow JavaScript for this page, then reload it.",
    "loading": "Loading the model…",
    "progress": "Loading the model: {loaded} of {total} MB, about {seconds} s left",
    "waiting": "Your photo is answered as soon as the model is loaded.",
    "wasm": "This browser cannot run the model; please update it or use another one.",
    "memory": "There is too little memory to run the model; please close other pages and try "
    "again.",
    "missing": "The model could not be loaded; please check your connection and try again.",
    "damaged": "The model arrived damaged; please try again, or tell whoever runs this page.",
    "retry": "Try again",
    "incomplete": "This page did not load completely; please reload it.",
    "live_unsure": "Not sure; closest: {label}",
    "update": "There is a new version of this page.",
    "update_use": "Use it",
}
"""The texts of the static site alone; words in braces are filled in by its script."""

HEIF_MISSING = (
    "For a HEIC this page needs a part that could not be loaded; please check your connection and "
    "reload the page, or choose a JPEG."
)
"""What the static site says of a HEIC where libheif cannot be loaded."""

SITE_DROP_TEXTS = DROP_TEXTS | {
    "privacy": SITE_TEXTS["privacy"],
    "slow": "This is taking a while: this device is slow or busy. Please wait, or reload.",
}
"""The texts of the drop zone on the static site."""

ABOUT = {
    "summary": "About this model",
    "classes": "It tells {count} classes apart: {names}.",
    "error": "Of {photos} photos, each judged by a model trained without it, {error} got a wrong "
    "answer (95 % confidence interval {low} to {high}).",
    "trained": "Trained on {date}.",
    "limits": "It has learned what photos of its classes look like, nothing else. A high "
    "probability is no proof. It is not for telling who somebody is, or what somebody believes, "
    "feels or is worth.",
}
"""What the page says about its model; words in braces are filled in."""


def plain(label: str) -> str:
    """Return a label for people to read: underscores become spaces."""
    return label.replace("_", " ")


_NAMED = 6
"""How many classes are named where others are only counted."""


def either(labels: Sequence[str]) -> str:
    """Join labels: ``black, grizzly or teddy``.

    Parameters
    ----------
    labels : sequence of str
        At least one; underscores become spaces. Where there are more than seven, those after the
        first six are only counted.
    """
    names = [plain(label) for label in labels]
    if len(names) > _NAMED + 1:
        return f"{', '.join(names[:_NAMED])} or one of {len(names) - _NAMED} more"
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def question(labels: Sequence[str]) -> str:
    """Return the page's title: the question that it answers."""
    title = _which(labels)
    return f"{title[:1].upper()}{title[1:]}?"


def hint(labels: Sequence[str]) -> str:
    """Return the sentence that says what to do."""
    return f"Choose a photo, then press the button: {_which(labels)}?"


def description(labels: Sequence[str], privacy: str) -> str:
    """Return the sentences that say what the page does, for where a link to it is shown."""
    return f"Show it a photo, and it answers: {_which(labels)}? {privacy}"


def privacy(*, asks: bool) -> str:
    """Return the sentence on what becomes of a photo.

    Parameters
    ----------
    asks : bool
        Whether the page asks if its answer is right.
    """
    if asks:
        return "Your photo is stored only if you say whether its answer is right."
    return "Your photo is not stored."


def kept(label: str | None) -> str:
    """Return the thanks for a photo that is kept, under a label or as none of the classes."""
    name = FEEDBACK_TEXTS["something_else"] if label is None else plain(label)
    return f"Thank you: kept as {name}."


def _which(labels: Sequence[str]) -> str:
    return f"which of {len(labels)} is it" if are_many(labels) else either(labels)


def are_many(labels: Sequence[str]) -> bool:
    """Return whether there are too many classes, or too long ones, to name them all."""
    return len(labels) > 12 or len(either(labels)) > 80


def line(prediction: Prediction, labels: Sequence[str]) -> str:
    """Return the answer as one line.

    Where the photo does not look like those that the model was trained on, the line says so, with
    the closest label; otherwise it is that of the prediction itself.

    Parameters
    ----------
    prediction : Prediction
        The answer.
    labels : sequence of str
        All classes of the model.
    """
    # The template of a known photo is that of Prediction itself.
    return LINES["known" if prediction.known else "unsure"].format(
        names=any_of(labels),
        label=prediction.label if prediction.known else plain(prediction.label),
        probability=probability(prediction.probability),
    )


def any_of(labels: Sequence[str]) -> str:
    """Return all classes as the line of a photo that looks like none of them names them."""
    known = f"any of the {len(labels)} that this page knows"
    return known if are_many(labels) else either(labels)


def probability(value: float) -> str:
    """Format a probability, everywhere on the page as in the line of an answer."""
    return f"{value:.4f}"


def percent(share: float) -> str:
    """Format a share in percent; only 0 and 1 themselves become 0 and 100."""
    if 0.0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1.0:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def summary(answered: int, count: int) -> str:
    """Return the line above the answers for several photos."""
    return SUMMARIES["all" if answered == count else "some"].format(
        answered=answered, count=count, failed=count - answered
    )


PAGE_TEXTS = {
    "starting": "Starting…",
    "no_script": "This page needs JavaScript: without it there are no buttons to choose a photo "
    "and to ask what it shows. Please allow JavaScript for this page, then reload it.",
    "sending": "Sending to the server…",
    "too_large": "This file is too large to be sent; please choose a smaller one.",
    "lost": "The connection is lost; trying again…",
    "ended": "This page has ended. Please reload it to go on.",
    "ended_slow": "This photo took too long. Please reload the page and try another one.",
    "ended_proxy": "The proxy in front of this page does not pass its connection on. If you run "
    "this page, see the server's log for what to change.",
    "ended_crowded": "Others are waiting, so this page has ended. Please reload it to go on.",
    "reload": "Reload the page",
    "own_browser": OWN_BROWSER,
    "unknown_widget": "This page cannot show the widget “{name}” of {module}.",
    "widget_failed": "This part of the page could not be shown; please reload the page.",
    "output_failed": "Something went wrong on this page. Please reload it; if that does not help, "
    "tell whoever runs it.",
    "details": "Details",
    "picture": "Picture",
    "notebooks": "Choose a page",
    "no_notebooks": "There is no page here.",
}
"""Texts of the slim template and its script; words in braces are filled in there."""
