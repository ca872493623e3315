"""Keep the photos that visitors give, so that a classifier gets better by being used.

Nothing is kept unless the maintainer names a folder, and no photo without its visitor's click.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from icon_classifier.errors import FeedbackError, SettingsError
from icon_classifier.files import NO_CLASS, folder_name, write_file
from icon_classifier.page import texts

FOLDER = "FEEDBACK_FOLDER"
"""The variable that names the folder; the server passes it on to the kernels."""

BYTES = "FEEDBACK_MAX_BYTES"
"""The variable with the bytes that the folder may have."""

MAX_BYTES = 500_000_000
"""Bytes that the folder may have where nothing else is said."""


class Feedback:
    """The photos that one page's visitor gives: ``folder/<label>/<SHA-256>.jpg``.

    Parameters
    ----------
    folder : str or pathlib.Path
        The same for all visitors. It need not exist.
    max_bytes : int, optional
        The size of all files in it, beyond which no photo is kept. Visitors that click at the same
        moment may exceed it by one photo each.
    """

    def __init__(self, folder: str | Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = Path(folder).expanduser()
        self._max_bytes = max_bytes
        # By hash: the label, and the file unless it was there before.
        self._kept: dict[str, tuple[str | None, Path | None]] = {}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """Return what the environment asks for; None where it names no folder.

        Raises
        ------
        SettingsError
            If the size is no number.
        """
        text = environment.get(BYTES) or str(MAX_BYTES)
        if not text.isdecimal():
            raise SettingsError(f"expected a number of bytes in the variable {BYTES}, got {text!r}")
        folder = environment.get(FOLDER)
        return cls(folder, int(text)) if folder else None

    def state(self, photo: bytes) -> dict[str, Any]:
        """Return what the page shows of a photo.

        Returns
        -------
        dict
            ``photo``, its name; ``said``, a sentence if it is kept; ``can_undo``. Empty where there
            is no photo.
        """
        name = _name(photo)
        said = texts.kept(self._kept[name][0]) if name in self._kept else ""
        return {"photo": name, "said": said, "can_undo": bool(said)} if photo else {}

    def keep(self, photo: bytes, label: str | None) -> dict[str, Any]:
        """Keep a photo, and return its state. If it was kept under another label, it moves.

        Parameters
        ----------
        photo : bytes
            A JPEG without any metadata.
        label : str or None
            What it shows; None for none of the classes.

        Raises
        ------
        FeedbackError
            If it cannot be kept, or the one under another label cannot be removed.
        """
        self.undo(photo)
        if len(self._kept) >= texts.MAX_PHOTOS:
            raise FeedbackError(
                f"expected at most {texts.MAX_PHOTOS} photos", words=texts.FEEDBACK_ENOUGH
            )
        name = _name(photo)
        folder = self._folder / (NO_CLASS if label is None else folder_name(label) or "_")
        target = folder / f"{name}.jpg"
        try:
            is_new = not target.exists()
            if is_new:
                if self._size() + len(photo) > self._max_bytes:
                    raise FeedbackError(
                        f"{self._folder}: expected at most {self._max_bytes} bytes",
                        words=texts.FEEDBACK_FULL,
                    )
                folder.mkdir(parents=True, exist_ok=True)
                write_file(target, photo)
        except OSError as error:
            raise FeedbackError(f"cannot keep a photo: {error}") from error
        self._kept[name] = label, target if is_new else None
        return self.state(photo)

    def undo(self, photo: bytes) -> dict[str, Any]:
        """Remove a photo if this page has kept it, and return its state.

        Raises
        ------
        FeedbackError
            If it cannot be removed; it then still counts as kept.
        """
        _, file = self._kept.get(_name(photo), (None, None))
        if file is not None:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise FeedbackError(
                    f"cannot remove a photo: {error}", words=texts.FEEDBACK_NOT_REMOVED
                ) from error
        self._kept.pop(_name(photo), None)
        return self.state(photo)

    def _size(self) -> int:
        size = 0
        for folder, _, names in os.walk(self._folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # another visitor has just removed it
                    size += Path(folder, name).stat().st_size
        return size


def _name(photo: bytes) -> str:
    return hashlib.sha256(photo).hexdigest()
