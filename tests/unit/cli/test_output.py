from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from icon_classifier.cli.output import (
    PathSet,
    csv_row,
    json_line,
    open_results,
    show_progress,
    text_line,
)
from icon_classifier.errors import SettingsError

GOOD = {
    "path": "bears/a, b.jpg",
    "label": "grizzly",
    "probability": 0.9,
    "known": True,
    "ranking": [
        {"label": "grizzly", "probability": 0.9},
        {"label": "black", "probability": 0.08},
        {"label": "teddy", "probability": 0.02},
    ],
}
BAD = {"path": "bears/none.jpg", "error": "This file cannot be opened; please check it."}
ODD = GOOD | {"path": "bears/\udcff\n.jpg", "known": False}  # a name that is not UTF-8
FORMULA = GOOD | {"path": "=1+1.jpg"}
ALL = [GOOD, BAD, ODD, FORMULA]


def test_text_line_has_path_and_labels() -> None:
    assert text_line(GOOD, 1) == "bears/a, b.jpg\tgrizzly\t0.9000"
    assert text_line(GOOD, 2) == "bears/a, b.jpg\tgrizzly\t0.9000\tblack\t0.0800"
    assert text_line(BAD, 1) == f"{BAD['path']}\t{BAD['error']}"
    assert text_line(ODD, 1).endswith("\tnot sure")


def test_text_line_and_row_have_no_control_characters() -> None:
    ranking = [{"label": "\x1b]0;title\x07", "probability": 0.9}]
    record = GOOD | {"path": "a\tb\x1b[2J.jpg", "ranking": ranking}
    assert text_line(record, 1) == "a\\tb\\x1b[2J.jpg\t\\x1b]0;title\\x07\t0.9000"
    assert csv_row(record, 1) == r'a\tb\x1b[2J.jpg,"\x1b]0;title\x07",0.9,yes,'
    assert "\x1b" not in json_line(record, 1)


def test_csv_row_has_no_formulas() -> None:
    record = FORMULA | {"ranking": [{"label": "@SUM(A1)", "probability": 0.9}]}
    assert csv_row(record, 1) == "'=1+1.jpg,'@SUM(A1),0.9,yes,"


@pytest.mark.parametrize("record", ALL)
def test_json_line_reads_back(record: dict) -> None:
    line = json_line(record, 1)
    assert len(line.splitlines()) == 1
    line.encode()
    assert json.loads(line) == record


def test_table_has_the_columns_of_its_header(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    with open_results(path, "csv", 2) as results:
        for record in ALL:
            results.write(record)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "path": "bears/a, b.jpg",
        "label": "grizzly",
        "probability": "0.9",
        "label_2": "black",
        "probability_2": "0.08",
        "known": "yes",
        "error": "",
    }
    assert rows[1]["error"] == BAD["error"]
    assert rows[2]["known"] == "no"
    assert len(rows) == len(ALL)


def test_csv_row_leaves_missing_classes_empty() -> None:
    assert csv_row(GOOD, 4) == '"bears/a, b.jpg",grizzly,0.9,black,0.08,teddy,0.02,,,yes,'


@pytest.mark.parametrize("form", ["json", "csv"])
class TestResume:
    """Tests of resuming a results file."""

    def write(self, path: Path, form: str, records: list[dict]) -> bool:
        with open_results(path, form, 2) as results:
            for record in records:
                if record["path"] not in results.done:
                    results.write(record)
            return results.failed

    def test_two_runs_write_the_same_file_as_one(self, tmp_path: Path, form: str) -> None:
        assert self.write(tmp_path / "one", form, ALL)
        assert not self.write(tmp_path / "two", form, ALL[:1])
        assert self.write(tmp_path / "two", form, ALL)
        assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()

    def test_error_of_an_earlier_run_counts_as_failed(self, tmp_path: Path, form: str) -> None:
        self.write(tmp_path / "file", form, ALL)
        assert self.write(tmp_path / "file", form, [])

    def test_file_cut_at_any_byte_is_completed(self, tmp_path: Path, form: str) -> None:
        path = tmp_path / "file"
        self.write(path, form, ALL)
        whole = path.read_bytes()
        for end in range(len(whole)):
            path.write_bytes(whole[:end])
            self.write(path, form, ALL)
            assert path.read_bytes() == whole

    @pytest.mark.parametrize("end", ["", "\n", "\nan unfinished line"])
    @pytest.mark.parametrize(
        "content", ["something else", '{"a": 1}', "[1]", "path,name", "a\rb", "x" * 200_000]
    )
    def test_file_of_something_else_is_refused_and_unchanged(
        self, tmp_path: Path, form: str, content: str, end: str
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes((content + end).encode())
        with pytest.raises(SettingsError, match="result in line 1"):
            self.write(path, form, ALL)
        assert path.read_bytes() == (content + end).encode()

    def test_file_that_cannot_be_written_is_refused(self, tmp_path: Path, form: str) -> None:
        with pytest.raises(SettingsError, match="cannot write"):
            self.write(tmp_path / "none" / "file", form, ALL)


def test_table_of_another_width_is_refused(tmp_path: Path) -> None:
    with open_results(tmp_path / "file", "csv", 1) as results:
        results.write(GOOD)
    with pytest.raises(SettingsError), open_results(tmp_path / "file", "csv", 2):
        pass


def test_file_of_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError), open_results(tmp_path / "file", "text", 1):
        pass
    assert not (tmp_path / "file").exists()


def test_long_unfinished_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(json_line(GOOD, 1) + "\n" + "x" * 200_000)
    with open_results(path, "json", 1) as results:
        assert GOOD["path"] in results.done
    assert path.read_text() == json_line(GOOD, 1) + "\n"


def test_path_set_contains_its_paths_and_no_other() -> None:
    paths = PathSet(f"photo {number}" for number in range(1000))
    assert len(paths) == 1000
    assert all(f"photo {number}" in paths for number in range(1000))
    assert not any(f"photo {number}" in paths for number in range(1000, 2000))
    assert "photo" not in PathSet()


def test_show_progress_yields_every_record_and_ends_with_the_count(
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = [{"path": str(number)} for number in range(7)]
    assert list(show_progress(records, lambda: map(str, range(10)), done=3)) == records
    assert "10/10" in capsys.readouterr().err


def test_show_progress_without_photos_ends_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(show_progress([], lambda: [])) == []
    assert "0/0" in capsys.readouterr().err
