import json
from pathlib import Path

import pytest

from icon_classifier.dataset.json_lines import append_lines, read_lines
from icon_classifier.errors import DatasetError


def test_partial_last_line_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    append_lines(file, [{"é": 1}, {"b": 2}])
    file.write_text(file.read_text(encoding="utf-8") + '{"c": ', encoding="utf-8")

    assert read_lines(file) == [{"é": 1}, {"b": 2}]
    append_lines(file, [{"d": 4}])
    assert read_lines(file) == [{"é": 1}, {"b": 2}, {"d": 4}]


def test_damaged_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({"a": 1}) + "\n{\n{}\n")

    with pytest.raises(DatasetError, match=r"x\.jsonl: line 2 is damaged"):
        read_lines(file)
