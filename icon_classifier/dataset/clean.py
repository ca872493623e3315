"""Clean gathered photos: bad ones go to quarantine, odd ones are rewritten, none is deleted.

Afterwards fastai reads every photo just as the page will (upright, opaque, RGB), and its suffix is
one that ``get_image_files`` knows on every machine; Python 3.11 does not know ``.webp``, say.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image
from tqdm.auto import tqdm

from icon_classifier.dataset.duplicates import Fingerprint, compare, fingerprint, group_pairs
from icon_classifier.dataset.journal import Move, apply_moves
from icon_classifier.dataset.store import photos_and_labels, suffix_of
from icon_classifier.errors import DatasetError, ImageError
from icon_classifier.images import Limits, read_image, read_image_file

_READ_EVERYWHERE = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff"}
_LOSSLESS = {".png", ".gif", ".bmp", ".tif", ".tiff"}
_LARGE = 24_000_000  # pixels; larger ones are halved when they are read
_UPRIGHT = 1


@dataclass(frozen=True)
class CleanReport:
    """What cleaning found and did.

    Attributes
    ----------
    paths, labels : tuple
        The photos that are left, sorted, and the label of each.
    groups : tuple of int
        For :func:`~icon_classifier.dataset.duplicates.split`: near-duplicates share a number.
    quarantined : tuple of Move
        What was moved to quarantine, and why.
    rewritten : tuple of Move
        Originals of photos that were written anew.
    conflicts : tuple of (Path, Path)
        Near-duplicates under different labels: one of the labels may be wrong.
    """

    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    groups: tuple[int, ...]
    quarantined: tuple[Move, ...]
    rewritten: tuple[Move, ...]
    conflicts: tuple[tuple[Path, Path], ...]

    def __str__(self) -> str:
        counts = Counter(self.labels)
        lines = [f"{len(self.paths)} photos: " + _tally(counts)]
        repeats = len(self.groups) - len(set(self.groups))
        if repeats:
            lines.append(f"{repeats} are near-duplicates; they stay on one side of the split")
        if self.quarantined:
            reasons = Counter(move.reason.partition(":")[0] for move in self.quarantined)
            lines.append(f"{len(self.quarantined)} are in quarantine: " + _tally(reasons))
        if self.rewritten:
            lines.append(f"{len(self.rewritten)} were written anew; the originals are kept")
        for first, second in self.conflicts:
            lines.append(
                f"alike but labelled differently: {first.parent.name}/{first.name} and "
                f"{second.parent.name}/{second.name}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class _Finding:
    """What one look at a photo tells."""

    digest: str
    problem: str | None = None
    suffix: str | None = None  # to write it anew with
    fingerprint: Fingerprint | None = None


def clean(
    photos: Path,
    *,
    limits: Limits = Limits(),
    with_fastai: bool = True,
    progress: bool = True,
) -> CleanReport:
    """Move bad photos to quarantine and rewrite those that fastai would read differently.

    A photo is bad if it cannot be decoded to its end, if it is there twice, or if the same file is
    under several labels (a placeholder or a mistake). The reason is in ``moves.jsonl`` beside the
    folder of photos.

    Parameters
    ----------
    photos : Path
        What :func:`~icon_classifier.dataset.gather.gather` returned.
    limits : Limits
        What a photo may cost.
    with_fastai : bool
        Let fastai's ``verify_images`` have the last word; it takes seconds to import.
    progress : bool
        Show a progress bar.

    Returns
    -------
    CleanReport

    Raises
    ------
    DatasetError
        If more than half of the photos look bad, for that is a mistake of the program or its setup
        rather than of the photos, or if a class would have none left. Nothing is moved then.
    """
    photos = Path(photos)
    paths, labels = photos_and_labels(photos)
    if not paths:
        raise DatasetError(f"there are no photos in {photos}; expected one folder for each class")

    def look(path: Path) -> _Finding:
        return _look(path, limits)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding frees the interpreter lock
        looks = tqdm(pool.map(look, paths), "clean", len(paths), unit="photo", disable=not progress)
        findings = dict(zip(paths, looks, strict=True))
    problems = {path: each.problem for path, each in findings.items() if each.problem}
    _check_half(problems, len(paths))
    problems.update(_same_files(findings))
    _check_left(paths, problems)
    quarantined = _quarantine(photos, problems)
    left = {path: each for path, each in findings.items() if path not in problems}
    targets = _targets(left)
    rewritten = _rewrite(photos, targets, limits)
    prints = {targets.get(path, path): each.fingerprint for path, each in left.items()}
    if with_fastai:
        quarantined += _verify(photos)
    paths, labels = photos_and_labels(photos)
    pairs = compare([each for path in paths if (each := prints[path])])
    return CleanReport(
        tuple(paths),
        tuple(labels),
        tuple(group_pairs(len(paths), pairs)),
        tuple(quarantined),
        tuple(rewritten),
        tuple((paths[a], paths[b]) for a, b in pairs if labels[a] != labels[b]),
    )


def _tally(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def _look(path: Path, limits: Limits) -> _Finding:
    try:
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
        image = read_image(data, limits)
    except OSError as error:
        return _Finding("", f"cannot be opened: {error.strerror}")
    except ImageError as error:
        return _Finding(hashlib.sha256(data).hexdigest(), f"not a usable picture: {error}")
    digest = hashlib.sha256(data).hexdigest()
    return _Finding(digest, None, _new_suffix(path, data), fingerprint(image))


def _new_suffix(path: Path, data: bytes) -> str | None:
    """Suffix to write a photo anew with, or None where plain Pillow reads it just as we do."""
    kind = suffix_of(data) or ""
    with Image.open(path) as image:
        plain = (
            kind in _READ_EVERYWHERE
            and path.suffix.lower() in _READ_EVERYWHERE
            and image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT) == _UPRIGHT
            and not image.has_transparency_data
            and not image.mode.startswith(("I", "F"))
            and image.width * image.height <= _LARGE
        )
    if plain:
        return None
    return ".png" if kind in _LOSSLESS else ".jpg"


def _check_half(problems: dict[Path, str], count: int) -> None:
    if 2 * len(problems) > count:
        first = next(iter(problems))
        raise DatasetError(
            f"{len(problems)} of {count} photos look bad, which hints at a mistake elsewhere; "
            f"nothing was moved. The first: {first}: {problems[first]}"
        )


def _same_files(findings: dict[Path, _Finding]) -> dict[Path, str]:
    """Photos that are there more than once, and why each of them has to go."""
    same: dict[str, list[Path]] = defaultdict(list)
    for path, finding in findings.items():
        if not finding.problem:
            same[finding.digest].append(path)
    leave = {}
    for copies in same.values():
        under = sorted({path.parent.name for path in copies})
        if len(under) > 1:  # nobody can tell which label is right
            reason = f"the same file under several labels: {', '.join(under)}"
            leave.update(dict.fromkeys(copies, reason))
        else:
            leave.update(dict.fromkeys(copies[1:], f"a copy: of {copies[0].name}"))
    return leave


def _check_left(paths: Sequence[Path], problems: dict[Path, str]) -> None:
    before = {path.parent.name for path in paths}
    after = {path.parent.name for path in paths if path not in problems}
    if before - after:
        some = next(path for path in paths if path.parent.name in before - after)
        raise DatasetError(
            f"no photo of {', '.join(sorted(before - after))} would be left; nothing was moved. "
            f"One of them: {some}: {problems[some]}"
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
    """Where to write photos anew: beside, under another suffix and a name that is free."""
    taken = {str(path).casefold() for path in findings}
    targets = {}
    for path, each in findings.items():
        if not each.suffix:
            continue
        target, number = path.with_suffix(each.suffix), 0
        while target != path and str(target).casefold() in taken:
            number += 1
            target = path.with_name(f"{path.stem}-{number}{each.suffix}")
        taken.add(str(target).casefold())
        targets[path] = target
    return targets


def _rewrite(photos: Path, targets: dict[Path, Path], limits: Limits) -> list[Move]:
    """Write photos anew, as the page will see them, and keep the originals beside the photos."""

    def write(path: Path) -> None:
        image = read_image_file(path, limits)
        if targets[path].suffix == ".png":
            image.save(_beside(path), "PNG", compress_level=1)
        else:
            image.save(_beside(path), "JPEG", quality=95, subsampling=0)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, targets))
    moves = [
        Move(
            path.relative_to(photos.parent).as_posix(),
            f"originals/{path.parent.name}/{path.name}",
            "written anew: upright, opaque, RGB",
        )
        for path in targets
    ]
    done = apply_moves(photos.parent, moves, "rewritten")
    for path, target in targets.items():
        _beside(path).replace(target)
    return done


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.tmp")


def _verify(photos: Path) -> list[Move]:
    """Have fastai open each photo; what it cannot open would end a training half way."""
    from icon_classifier.conversion.torch_setup import import_fastai

    import_fastai()
    from fastai.vision.utils import verify_images

    paths, _ = photos_and_labels(photos)
    problems = {Path(path): "fastai cannot open it" for path in verify_images(paths)}
    _check_half(problems, len(paths))
    _check_left(paths, problems)
    return _quarantine(photos, problems)
