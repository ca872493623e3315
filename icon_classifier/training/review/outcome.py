"""Say in a line how good a model is, and whether it is better than the previous one."""

from pathlib import Path

from icon_classifier.errors import ModelError
from icon_classifier.model.info import read_metadata
from icon_classifier.model.opening import MODEL
from icon_classifier.training.evaluation import Figures

_WORST = 5
"""How many classes are named."""


def headline(figures: Figures) -> str:
    """Return the error with its interval and the mean recall, which counts all classes alike."""
    low, high = figures.interval
    return (
        f"{figures.error:.1%} wrong, {figures.errors} of {figures.photos} "
        f"(95 % interval {low:.1%} to {high:.1%}); "
        f"mean recall of the classes {figures.mean_recall:.1%}"
    )


def worst_classes(figures: Figures) -> str:
    """Name the classes of the lowest recall, and how many of their photos are right."""
    ranked = sorted(figures.classes, key=lambda each: each.recall)[:_WORST]
    return "lowest recall: " + ", ".join(
        f"{each.label}: {round(each.recall * each.photos)} of {each.photos}" for each in ranked
    )


def compare_before(figures: Figures, *folders: Path) -> str:
    """Say whether a model is better or worse than the previous one.

    Parameters
    ----------
    figures : Figures
        Of the new model.
    folders : Path
        Where a previous model may lie; the first that has the same classes and figures is taken.
    """
    labels = sorted(each.label for each in figures.classes)
    for folder in folders:
        try:
            about = read_metadata(folder / MODEL)
        except ModelError:
            continue
        before = about.get("figures") or {}
        if sorted(about.get("labels", [])) != labels or "error" not in before:
            continue
        name = f"the previous model ({folder / MODEL})"
        if figures.error == before["error"]:
            return f"As good as {name}: {figures.error:.1%} wrong."
        word = "Better" if figures.error < before["error"] else "Worse"
        low, high = figures.interval
        chance = ", which may be chance" if low <= before["error"] <= high else ""
        line = f"{word} than {name}: {figures.error:.1%} wrong, not {before['error']:.1%}{chance}."
        if word == "Worse":
            line += " make release-model refuses one worse than the page's without ARGS=--worse."
        return line
    return "There is no model of these classes to compare with."
