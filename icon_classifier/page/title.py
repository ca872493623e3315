"""What the page is called: its recipe's title, or the question that it answers."""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from icon_classifier.page import texts

FOLDER = "recipes"
"""Name of the folder of recipes, in the project folder."""


def page_title(labels: Sequence[str], recipe: str | None, folder: str | Path = ".") -> str:
    """Return the page's title.

    Parameters
    ----------
    labels : sequence of str
        The classes of the model.
    recipe : str or None
        Name of the recipe that it was trained with. Where that names other classes, the model came
        from other photos: its title is made of the labels.
    folder : str or pathlib.Path, optional
        The project folder.
    """
    table: object = None
    if re.fullmatch(r"[\w-]+", recipe or ""):
        with contextlib.suppress(OSError, ValueError):  # no file, no TOML, no UTF-8
            table = tomllib.loads(Path(folder, FOLDER, f"{recipe}.toml").read_text("utf-8"))
    match table:
        case {"title": str(title), "classes": [*classes]} if title.strip():
            names = [entry.get("name") for entry in classes if isinstance(entry, dict)]
            fits = sorted(map(str, names)) == sorted(labels)
        case {"title": str(title), **others} if title.strip():  # the folders name the classes
            fits = "classes" not in others
        case _:
            title, fits = "", False
    if not fits:
        return texts.question(labels)
    return f"{title}?" if " or " in title else title
