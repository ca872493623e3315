"""Move photos without losing one: no name is used twice, and a journal lets them be undone.

A data folder has one journal, ``moves.jsonl``. The lines are written before the photos are moved,
so that an interrupted run leaves too many lines, never a photo that is not recorded.
"""

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from icon_classifier.dataset.json_lines import append_lines, read_lines
from icon_classifier.errors import DatasetError

JOURNAL = "moves.jsonl"

Kind = Literal["cleaner", "quarantine", "rewritten"]


@dataclass(frozen=True)
class Move:
    """A photo's move from one path in a data folder to another.

    Attributes
    ----------
    source, target : str
        Paths relative to the data folder, with slashes.
    reason : str
        Why, for people.
    """

    source: str
    target: str
    reason: str


def apply_moves(root: Path, moves: Iterable[Move], kind: Kind) -> list[Move]:
    """Move photos, and record each move in the journal.

    Parameters
    ----------
    root : Path
        The data folder.
    moves : iterable of Move
        What to move. A target whose name is in use gets a number.
    kind : {"cleaner", "quarantine", "rewritten"}
        Which part of the program moves; :func:`undo_moves` undoes those of the cleaner.

    Returns
    -------
    list of Move
        The moves with their final targets.

    Raises
    ------
    DatasetError
        If a photo is missing or a path leaves the data folder; then nothing has been moved.
    """
    planned: list[Move] = []
    used: set[str] = set()
    for move in moves:
        if not (_inside(root, move.source) and _inside(root, move.target)):
            raise DatasetError(f"{move.source} to {move.target} would leave the folder {root}")
        if not (root / move.source).is_file():
            raise DatasetError(f"{root / move.source} does not exist any more; nothing was moved")
        target = _free(root, move.target, used)
        used.add(target.casefold())
        planned.append(Move(move.source, target, move.reason))
    if planned:
        batch = datetime.now(UTC).isoformat()
        append_lines(
            root / JOURNAL, ({"batch": batch, "kind": kind, **move.__dict__} for move in planned)
        )
    for move in planned:
        _rename(root / move.source, root / move.target)
    return planned


def undo_moves(root: Path) -> list[Move]:
    """Undo the latest run of the cleaner that has not been undone yet.

    Parameters
    ----------
    root : Path
        The data folder.

    Returns
    -------
    list of Move
        The moves back, the last one first; empty if there is nothing to undo.

    Raises
    ------
    DatasetError
        If a photo's old name has been used since; then nothing has been moved.
    """
    left = [line for line in _lines_in_effect(root) if line["kind"] == "cleaner"]
    if not left:
        return []
    batch = left[-1]["batch"]
    back = []
    for line in reversed([line for line in left if line["batch"] == batch]):
        target, source = PurePosixPath(line["target"]), PurePosixPath(line["source"])
        if not (root / target).is_file():
            # Interrupted before it was moved, moved by hand since, or rewritten as another kind.
            others = sorted((root / target.parent).glob(f"{glob.escape(target.stem)}.*"))
            if not others:
                continue
            target = target.with_suffix(others[0].suffix)
            source = source.with_suffix(others[0].suffix)
        if (root / source).exists():
            raise DatasetError(f"{root / source} exists again; nothing was undone")
        back.append(Move(target.as_posix(), source.as_posix(), f"undo: {line['reason']}"))
    for move in back:
        _rename(root / move.source, root / move.target)
    append_lines(root / JOURNAL, [{"undone": batch}])
    return back


def read_moves(root: Path) -> list[Move]:
    """Read all moves of a data folder's journal, undone ones as well, in order."""
    return [_move(line) for line in read_lines(root / JOURNAL) if "kind" in line]


def moves_in_effect(root: Path) -> list[tuple[Kind, Move]]:
    """Read the moves of a data folder's journal that were not undone, in order."""
    return [(line["kind"], _move(line)) for line in _lines_in_effect(root)]


def _lines_in_effect(root: Path) -> list[dict[str, Any]]:
    lines = read_lines(root / JOURNAL)
    undone = {line["undone"] for line in lines if "undone" in line}
    return [line for line in lines if "kind" in line and line["batch"] not in undone]


def _move(line: dict[str, Any]) -> Move:
    return Move(line["source"], line["target"], line["reason"])


def _inside(root: Path, path: str) -> bool:
    return (root / path).resolve().is_relative_to(root.resolve())


def _free(root: Path, target: str, used: set[str]) -> str:
    """Return the target, or the target with the first number that makes it unused."""
    path = Path(target)
    name, number = path, 0
    # Some file systems do not distinguish capital letters.
    while name.as_posix().casefold() in used or (root / name).exists():
        number += 1
        name = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return name.as_posix()


def _rename(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    except OSError as error:
        raise DatasetError(f"{source} cannot be moved to {target}: {error.strerror}") from error
