import json
from collections.abc import Callable
from pathlib import Path

import pytest

from icon_classifier.dataset.json_lines import append_lines, read_lines, write_lines
from icon_classifier.errors import DatasetError


def test_partial_last_line_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    append_lines(file, [{"é": 1}, {"b": 2}])
    file.write_text(file.read_text(encoding="utf-8") + '{"c": ', encoding="utf-8")

    assert read_lines(file) == [{"é": 1}, {"b": 2}]
    append_lines(file, [{"d": 4}])
    assert read_lines(file) == [{"é": 1}, {"b": 2}, {"d": 4}]


@pytest.mark.parametrize("write", [append_lines, write_lines])
def test_name_that_is_not_unicode_is_read_as_it_was_written(
    tmp_path: Path, write: Callable[[Path, list[dict[str, str]]], None]
) -> None:
    lines = [{"file": "ph\udcff/1.jpg"}, {"file": "é\u2028"}]
    write(tmp_path / "x.jsonl", lines)

    assert read_lines(tmp_path / "x.jsonl") == lines


def test_damaged_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({"a": 1}) + "\n{\n{}\n")

    with pytest.raises(DatasetError, match=r"x\.jsonl: line 2 is damaged"):
        read_lines(file)
