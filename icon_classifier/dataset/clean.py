"""Clean gathered photos: bad ones go to quarantine, unusual ones are rewritten, none is deleted.

Afterwards fastai reads every photo just as the page will (upright, opaque, RGB), and its suffix is
one that ``get_image_files`` knows on every machine; Python 3.11 does not know ``.webp``, say.
"""

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import track

from icon_classifier.dataset.duplicates import (
    Fingerprint,
    fingerprint,
    group_pairs,
    near_duplicates,
)
from icon_classifier.dataset.journal import Move, apply_moves
from icon_classifier.dataset.sources.credits import write_credits
from icon_classifier.dataset.store import TEST, original_name, photos_and_labels, suffix_of
from icon_classifier.errors import DatasetError, ImageError
from icon_classifier.files import replacing
from icon_classifier.images import (
    MAX_WHOLE_PIXELS,
    Limits,
    read_image,
    read_image_file,
    read_orientation,
)
from icon_classifier.system.memory import usable_cores

_READ_EVERYWHERE = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff"}
"""Suffixes that ``get_image_files`` knows on every machine."""

_LOSSLESS = {".png", ".gif", ".bmp", ".tif", ".tiff"}
_UPRIGHT = 1


@dataclass(frozen=True)
class CleanReport:
    """What cleaning found and did.

    Attributes
    ----------
    paths, labels : tuple
        The photos that are left, sorted, and the label of each.
    groups : tuple of int
        For :func:`~icon_classifier.dataset.splits.split`: near-duplicates share a number.
    quarantined : tuple of Move
        What was moved to quarantine, and why.
    rewritten : tuple of Move
        Originals of photos that were rewritten.
    conflicts : tuple of (Path, Path)
        Near-duplicates under different labels: one of the labels may be wrong.
    test : tuple of Path
        The photos of the test set, which are never trained on.
    test_copies : tuple of (Path, Path)
        Near-duplicates of which the second is in the test set: it is easier than new photos are.
    """

    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    groups: tuple[int, ...]
    quarantined: tuple[Move, ...]
    rewritten: tuple[Move, ...]
    conflicts: tuple[tuple[Path, Path], ...]
    test: tuple[Path, ...] = ()
    test_copies: tuple[tuple[Path, Path], ...] = ()


@dataclass(frozen=True)
class _Finding:
    """What was found in one photo."""

    digest: str
    problem: str | None = None
    suffix: str | None = None  # to rewrite it with
    fingerprint: Fingerprint | None = None


def clean(
    photos: Path,
    *,
    with_fastai: bool = True,
    progress: bool = True,
) -> CleanReport:
    """Move bad photos to quarantine and rewrite those that fastai would read differently.

    A photo is bad if it cannot be decoded completely, if it is there twice, in the test set for
    example, or if the same file is under several labels (a placeholder or a mistake). The reason is
    written to ``moves.jsonl`` next to the folder of photos.

    Parameters
    ----------
    photos : Path
        What :func:`~icon_classifier.dataset.gather.gather` returned.
    with_fastai : bool
        Also check with fastai's ``verify_images``; it takes seconds to import.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    CleanReport

    Raises
    ------
    DatasetError
        If a class would have no photo left. Nothing is moved then.
    """
    photos = Path(photos)
    paths, _ = photos_and_labels(photos)
    test, _ = photos_and_labels(photos.parent / TEST)
    if not paths:
        raise DatasetError(f"there are no photos in {photos}; expected one folder for each class")

    with ThreadPoolExecutor(usable_cores()) as pool:  # decoding releases the interpreter lock
        examined = track(
            pool.map(_examine, [*test, *paths]),
            "clean",
            len(test) + len(paths),
            console=Console(stderr=True),
            disable=not progress,
        )
        # Those of the test set come first: of copies, the first stays.
        findings = dict(zip([*test, *paths], examined, strict=True))
    problems = {path: each.problem for path, each in findings.items() if each.problem}
    problems.update(_same_files(findings))
    _check_left(paths, problems)
    quarantined = _quarantine(photos, problems)
    left = {path: each for path, each in findings.items() if path not in problems}
    kept_apart = set(test)
    targets = _targets({path: each for path, each in left.items() if path not in kept_apart})
    rewritten = _rewrite(photos, targets)
    prints = {targets.get(path, path): each.fingerprint for path, each in left.items()}
    if with_fastai:
        quarantined += _verify(photos)
    write_credits(photos)  # again: some photos have other names now
    paths, labels = photos_and_labels(photos)
    test, _ = photos_and_labels(photos.parent / TEST)
    both = [*paths, *test]
    found = near_duplicates([each for path in both if (each := prints[path])])
    pairs = [(a, b) for a, b in found if b < len(paths)]
    return CleanReport(
        tuple(paths),
        tuple(labels),
        tuple(group_pairs(len(paths), pairs)),
        tuple(quarantined),
        tuple(rewritten),
        tuple((paths[a], paths[b]) for a, b in pairs if labels[a] != labels[b]),
        tuple(test),
        tuple((both[a], both[b]) for a, b in found if a < len(paths) <= b),
    )


def _examine(path: Path) -> _Finding:
    try:
        with path.open("rb") as file:
            data = file.read(Limits().max_bytes + 1)
        image = read_image(data)
    except OSError as error:
        return _Finding("", f"cannot be opened: {error.strerror}")
    except ImageError as error:
        why = error.words.partition(";")[0].rstrip(".")  # without what to do about it
        return _Finding(hashlib.sha256(data).hexdigest(), why)
    digest = hashlib.sha256(data).hexdigest()
    return _Finding(digest, None, _new_suffix(path, data), fingerprint(image))


def _new_suffix(path: Path, data: bytes) -> str | None:
    """Suffix to rewrite a photo with, or None where plain Pillow reads it just as we do."""
    kind = suffix_of(data) or ""
    rewritten = ".png" if kind in _LOSSLESS else ".jpg"
    try:
        with Image.open(path) as image:
            if kind == ".png":
                image.load()  # a text behind the pixels may be longer than plain Pillow reads
            plain = (
                kind in _READ_EVERYWHERE
                and path.suffix.lower() in _READ_EVERYWHERE
                and read_orientation(image) == _UPRIGHT
                and not image.has_transparency_data
                and not image.mode.startswith(("I", "F"))
                and image.width * image.height <= MAX_WHOLE_PIXELS
            )
    except Exception:  # noqa: BLE001 - our reader can read it, whatever plain Pillow raises
        return rewritten
    return None if plain else rewritten


def _same_files(findings: dict[Path, _Finding]) -> dict[Path, str]:
    """Photos that are there more than once and have to go, and why."""
    same: dict[str, list[Path]] = defaultdict(list)
    for path, finding in findings.items():
        if not finding.problem:
            same[finding.digest].append(path)
    problems: dict[Path, str] = {}
    for copies in same.values():
        under = sorted({path.parent.name for path in copies})
        if len(under) > 1:  # which label is right is unknown
            reason = f"the same file under several labels: {', '.join(under)}"
            problems.update(dict.fromkeys(copies, reason))
        else:
            problems.update(dict.fromkeys(copies[1:], f"a copy: of {original_name(copies[0])}"))
    return problems


def _check_left(paths: Sequence[Path], problems: dict[Path, str]) -> None:
    before = {path.parent.name for path in paths}
    after = {path.parent.name for path in paths if path not in problems}
    if before - after:
        first = next(path for path in paths if path.parent.name in before - after)
        raise DatasetError(
            f"no photo of {', '.join(sorted(before - after))} would be left; nothing was moved. "
            f"The first: {first}: {problems[first]}"
        )


def _quarantine(photos: Path, problems: dict[Path, str]) -> list[Move]:
    moves = [
        Move(
            path.relative_to(photos.parent).as_posix(),
            f"quarantine/{path.parent.name}/{path.name}",
            problem,
        )
        for path, problem in problems.items()
    ]
    return apply_moves(photos.parent, moves, "quarantine")


def _targets(findings: dict[Path, _Finding]) -> dict[Path, Path]:
    """Where to rewrite photos: in the same folder, under another suffix and a free name."""
    used = {str(path).casefold() for path in findings}
    targets = {}
    for path, each in findings.items():
        if not each.suffix:
            continue
        target, number = path.with_suffix(each.suffix), 0
        while target != path and str(target).casefold() in used:
            number += 1
            target = path.with_name(f"{path.stem}-{number}{each.suffix}")
        used.add(str(target).casefold())
        targets[path] = target
    return targets


def _rewrite(photos: Path, targets: dict[Path, Path]) -> list[Move]:
    """Rewrite photos as the page will read them, and keep the originals in another folder."""

    def write(path: Path, temporary: Path) -> None:
        image = read_image_file(path)
        if targets[path].suffix == ".png":
            image.save(temporary, "PNG", compress_level=1)
        else:
            image.save(temporary, "JPEG", quality=95, subsampling=0)

    moves = [
        Move(
            path.relative_to(photos.parent).as_posix(),
            f"originals/{path.parent.name}/{path.name}",
            "rewritten: upright, opaque, RGB",
        )
        for path in targets
    ]
    # The originals are moved when all new files are written, and these get their names after that.
    with contextlib.ExitStack() as stack:
        temporaries = [stack.enter_context(replacing(target)) for target in targets.values()]
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(write, targets, temporaries))
        return apply_moves(photos.parent, moves, "rewritten")


def _verify(photos: Path) -> list[Move]:
    """Have fastai open each photo; one that it cannot open would end a training half-way."""
    from icon_classifier.system.torch_setup import import_fastai

    import_fastai()
    from fastai.vision.utils import verify_images

    paths, _ = photos_and_labels(photos)
    problems = {Path(path): "fastai cannot open it" for path in verify_images(paths)}
    _check_left(paths, problems)
    return _quarantine(photos, problems)
