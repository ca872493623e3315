"""Coverage-guided fuzzing of what reads photos: ``make fuzz SECONDS=60``.

atheris watches which branches of ``images.py`` and of Pillow's Python a file takes, and changes it
towards new ones. Whatever is no picture and no error of ours ends the run with the file.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed here; it needs Linux and a Python that it has a wheel for.")

with atheris.instrument_imports(include=["icon_classifier", "PIL"]):
    from icon_classifier.errors import ImageError
    from icon_classifier.images import Limits, read_image

from tests.support.hostile_pictures import KINDS
from tests.support.pictures import encode, gradient

LIMITS = Limits(max_pixels=4_000_000)  # what is large is tested elsewhere; here many are read


def one(data: bytes) -> None:
    """Read one file; anything but a picture or an error of ours is a find."""
    try:
        picture = read_image(data, LIMITS)
    except ImageError as error:
        if not error.words.endswith("."):
            raise RuntimeError("an error without words") from error
        return
    if picture.mode != "RGB":
        raise RuntimeError(f"a picture of mode {picture.mode}")


def main() -> None:
    """Fuzz for the seconds of the first argument."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    with tempfile.TemporaryDirectory(prefix="fuzz-") as corpus:
        for kind in KINDS:
            (Path(corpus) / kind).write_bytes(encode(gradient(size=(24, 16)), kind))
        options = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], *options, "-artifact_prefix=build/fuzz-", corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
