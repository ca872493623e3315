"""Keep features that a network computed, so that a second run on the same photos is fast.

One file holds the features of one network in pictures of one size. Photos are identified by their
contents: a renamed photo is found, a changed one is not. A photo takes some 5 kB in each file; only
the newest few files are kept.
"""

import hashlib
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icon_classifier.files import replacing

Floats = npt.NDArray[np.float32]

_MAX_FILES = 8
"""How many files are kept: one for each size, network and view of a set of photos."""

_log = logging.getLogger(__name__)


class FeatureCache:
    """Features of one network, by the SHA-256 of photos.

    Parameters
    ----------
    folder : Path
        Where the files are; made if missing. Errors of reading and writing are only logged.
    key : str
        Everything that features depend on except the photo: network, size, resize method, view,
        versions.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.npz"

    def read(self) -> dict[str, Floats]:
        """Return what is cached: a photo's SHA-256 to its features, shape (F,)."""
        try:
            with self.file.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                digests, features = stored["digests"], stored["features"]
            self.file.touch()  # the newest files are kept
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            _log.warning("%s is not used: %s", self.file, error)
            return {}
        if features.dtype != np.float32 or features.shape[:1] != digests.shape:
            _log.warning("%s is not used: its arrays do not match", self.file)
            return {}
        return dict(zip(digests.tolist(), features, strict=True))

    def write(self, features: Mapping[str, Floats]) -> None:
        """Replace what is cached by these features."""
        if not features:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.file) as temporary, temporary.open("wb") as file:
                np.savez(
                    file,
                    digests=np.array(list(features)),
                    features=np.stack(list(features.values())),
                )
            files = sorted(self.file.parent.glob("*.npz"), key=lambda each: each.stat().st_mtime)
            for old in files[:-_MAX_FILES]:
                old.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("features are not kept in %s: %s", self.file.parent, error)
