from pathlib import Path

import pytest

from icon_classifier.dataset.journal import (
    JOURNAL,
    Move,
    apply_moves,
    read_moves,
    undo_moves,
)
from icon_classifier.dataset.json_lines import append_lines, read_lines
from icon_classifier.errors import DatasetError


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def tree(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and path.name != JOURNAL
    }


def test_moves_are_done_and_undone(tmp_path: Path) -> None:
    fill(tmp_path, "photos/a/1.png", "photos/a/2.png", "photos/b/3.png")
    before = tree(tmp_path)
    moves = [
        Move("photos/a/1.png", "photos/b/1.png", "looks like b"),
        Move("photos/b/3.png", "quarantine/b/3.png", "deleted"),
    ]

    assert apply_moves(tmp_path, moves, "cleaner") == moves
    assert set(tree(tmp_path)) == {"photos/a/2.png", "photos/b/1.png", "quarantine/b/3.png"}
    assert read_moves(tmp_path) == moves

    back = undo_moves(tmp_path)

    assert [move.target for move in back] == ["photos/b/3.png", "photos/a/1.png"]
    assert tree(tmp_path) == before
    assert undo_moves(tmp_path) == []


def test_no_name_is_used_twice(tmp_path: Path) -> None:
    fill(tmp_path, "photos/a/1.png", "photos/b/1.png", "photos/c/1.PNG", "photos/c/x/1.png")
    moves = [
        Move("photos/a/1.png", "photos/c/1.png", ""),
        Move("photos/b/1.png", "photos/c/1.png", ""),
        Move("photos/c/x/1.png", "photos/c/1-1.png", ""),
    ]

    done = apply_moves(tmp_path, moves, "cleaner")

    names = [move.target for move in done]
    assert len({name.casefold() for name in names}) == 3
    assert {tree(tmp_path)[move.target] for move in done} == {
        "photos/a/1.png",
        "photos/b/1.png",
        "photos/c/x/1.png",
    }
    assert tree(tmp_path)["photos/c/1.PNG"] == "photos/c/1.PNG"


def test_photos_that_swap_labels_are_both_kept(tmp_path: Path) -> None:
    fill(tmp_path, "photos/a/1.png", "photos/b/1.png")
    moves = [
        Move("photos/a/1.png", "photos/b/1.png", ""),
        Move("photos/b/1.png", "photos/a/1.png", ""),
    ]

    apply_moves(tmp_path, moves, "cleaner")

    assert sorted(tree(tmp_path).values()) == ["photos/a/1.png", "photos/b/1.png"]
    undo_moves(tmp_path)
    assert tree(tmp_path) == {name: name for name in ("photos/a/1.png", "photos/b/1.png")}


def test_no_moves_write_no_journal(tmp_path: Path) -> None:
    assert apply_moves(tmp_path, [], "cleaner") == undo_moves(tmp_path) == []
    assert not (tmp_path / JOURNAL).exists()


@pytest.mark.parametrize(
    ("source", "target"),
    [("photos/a/1.png", "../1.png"), ("photos/a/1.png", "/1.png"), ("../x", "photos/a/x")],
)
def test_nothing_leaves_the_folder(tmp_path: Path, source: str, target: str) -> None:
    root = tmp_path / "root"
    fill(root, "photos/a/1.png")
    fill(tmp_path, "x")

    with pytest.raises(DatasetError, match="would leave the folder"):
        apply_moves(root, [Move(source, target, "")], "cleaner")


def test_missing_photo_stops_all_moves(tmp_path: Path) -> None:
    fill(tmp_path, "photos/a/1.png")
    moves = [Move("photos/a/1.png", "photos/b/1.png", ""), Move("photos/a/2.png", "x/2.png", "")]

    with pytest.raises(DatasetError, match=r"2\.png does not exist any more; nothing was moved"):
        apply_moves(tmp_path, moves, "cleaner")

    assert set(tree(tmp_path)) == {"photos/a/1.png"}


def test_undo_affects_only_moves_of_the_cleaner(tmp_path: Path) -> None:
    fill(tmp_path, "photos/a/1.png", "photos/a/2.png", "photos/a/3.png")
    for number, kind in enumerate(("cleaner", "quarantine", "cleaner"), 1):
        move = Move(f"photos/a/{number}.png", f"elsewhere/{number}.png", "")
        apply_moves(tmp_path, [move], kind)  # type: ignore[arg-type]

    assert [move.source for move in undo_moves(tmp_path)] == ["elsewhere/3.png"]
    assert [move.source for move in undo_moves(tmp_path)] == ["elsewhere/1.png"]
    assert undo_moves(tmp_path) == []


def test_undo_stops_where_the_old_name_exists_again(tmp_path: Path) -> None:
    fill(tmp_path, "photos/a/1.png")
    apply_moves(tmp_path, [Move("photos/a/1.png", "photos/b/1.png", "")], "cleaner")
    fill(tmp_path, "photos/a/1.png")

    with pytest.raises(DatasetError, match=r"1\.png exists again; nothing was undone"):
        undo_moves(tmp_path)


def test_interrupted_run_can_be_undone(tmp_path: Path) -> None:
    """The line of the second move was written, but the move was not made."""
    fill(tmp_path, "photos/a/1.png", "photos/a/2.png")
    apply_moves(tmp_path, [Move("photos/a/1.png", "photos/b/1.png", "")], "cleaner")
    line = read_lines(tmp_path / JOURNAL)[0]
    append_lines(
        tmp_path / JOURNAL, [{**line, "source": "photos/a/2.png", "target": "photos/b/2.png"}]
    )

    assert len(undo_moves(tmp_path)) == 1
    assert set(tree(tmp_path)) == {"photos/a/1.png", "photos/a/2.png"}
