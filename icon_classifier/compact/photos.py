"""The photos that a smaller model is calibrated and judged on."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icon_classifier.errors import ConversionError, ImageError
from icon_classifier.files import sha256_of
from icon_classifier.images import is_photo_file, read_image_file
from icon_classifier.model.session import Model

MAX_PHOTOS = 1100
"""More take minutes."""


def readable_photos(folder: Path) -> list[Path]:
    """Return the photos of a folder that can be read, each content once, at most `MAX_PHOTOS`.

    They are in the order of their SHA-256, which is random and the same every time.

    Parameters
    ----------
    folder : pathlib.Path
        Photos in folders of any depth; files whose names start with a dot are left out.

    Raises
    ------
    ConversionError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise ConversionError(f"expected a folder of photos, got {folder}, which is none")
    paths: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and is_photo_file(path) and not path.name.startswith("."):
            paths.setdefault(sha256_of(path), path)
    found = []
    for _, path in sorted(paths.items()):
        with contextlib.suppress(ImageError):
            read_image_file(path)
            found.append(path)
        if len(found) == MAX_PHOTOS:
            break
    return found


def arrays(
    reader: Model, paths: Sequence[Path], *, upside_down: bool = False
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield what a model takes of each photo: float32 of shape (1, K, H, W)."""
    for path in paths:
        photo = read_image_file(path)
        yield reader.transform(photo.rotate(180) if upside_down else photo)[None]
