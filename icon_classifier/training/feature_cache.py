"""Features that were computed before: each photo is looked at once by a network, then remembered.

One file holds what one network saw in pictures of one size. Photos are known by their contents, so
that a photo that was renamed is known and one that was changed is not. The folder stays small: a
file keeps only photos of the present run, and only the newest few files stay.
"""

import contextlib
import hashlib
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_FILES = 8
"""How many files stay: so many sizes, networks and views of one set of photos."""

_log = logging.getLogger(__name__)


class Looked:
    """What one network saw, by the contents of photos.

    Parameters
    ----------
    folder : Path
        Where the files are; made if missing. One that cannot be written to is done without.
    how : str
        All that features depend on beside the photo: network, size, way to resize, view, versions.
    """

    def __init__(self, folder: Path, how: str) -> None:
        self.file = folder / f"{hashlib.sha256(how.encode()).hexdigest()[:20]}.npz"

    def read(self) -> dict[str, Floats]:
        """Give what is known: a photo's digest to its features, shape (F,)."""
        try:
            with self.file.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                digests, features = stored["digests"], stored["features"]
            self.file.touch()  # the newest stay
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            _log.warning("%s is not used: %s", self.file, error)
            return {}
        if features.dtype != np.float32 or features.shape[:1] != digests.shape:
            _log.warning("%s is not used: it holds something else", self.file)
            return {}
        return dict(zip(digests.tolist(), features, strict=True))

    def write(self, known: Mapping[str, Floats]) -> None:
        """Keep features of these photos and of no others, at once or not at all."""
        if not known:
            return
        beside = self.file.with_name(f"{self.file.name}.{os.getpid()}.tmp")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                np.savez(
                    file, digests=np.array(list(known)), features=np.stack(list(known.values()))
                )
            beside.replace(self.file)
            files = sorted(self.file.parent.glob("*.npz"), key=lambda each: each.stat().st_mtime)
            for old in files[:-_FILES]:
                old.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("features are not kept in %s: %s", self.file.parent, error)
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)


def digests(paths: Sequence[Path]) -> list[str]:
    """Give the SHA-256 of each photo's contents."""
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
