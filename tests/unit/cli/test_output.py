from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from icon_classifier.cli.output import Done, csv_row, json_line, open_results, plain_line
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
ODD = GOOD | {"path": "bears/\udcff\n.jpg", "known": False}  # a name that is no UTF-8
ALL = [GOOD, BAD, ODD]


def test_text() -> None:
    assert plain_line(GOOD, 1) == "bears/a, b.jpg\tgrizzly\t0.9000"
    assert plain_line(GOOD, 2) == "bears/a, b.jpg\tgrizzly\t0.9000\tblack\t0.0800"
    assert plain_line(BAD, 1) == f"{BAD['path']}\t{BAD['error']}"
    assert plain_line(ODD, 1).endswith("\tnot sure")


@pytest.mark.parametrize("record", ALL)
def test_json_is_a_line_that_reads_back(record: dict) -> None:
    line = json_line(record, 1)
    assert len(line.splitlines()) == 1
    line.encode()
    assert json.loads(line) == record


def test_a_table_has_the_columns_of_its_head(tmp_path: Path) -> None:
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
    assert len(rows) == 3


def test_fewer_classes_than_asked_for() -> None:
    assert csv_row(GOOD, 4) == '"bears/a, b.jpg",grizzly,0.9,black,0.08,teddy,0.02,,,yes,'


@pytest.mark.parametrize("form", ["json", "csv"])
class TestResume:
    """Going on where a run stopped."""

    def write(self, path: Path, form: str, records: list[dict]) -> bool:
        with open_results(path, form, 2) as results:
            for record in records:
                if record["path"] not in results.done:
                    results.write(record)
            return results.failed

    def test_in_two_goes_is_as_in_one(self, tmp_path: Path, form: str) -> None:
        assert self.write(tmp_path / "one", form, ALL)
        assert not self.write(tmp_path / "two", form, ALL[:1])
        assert self.write(tmp_path / "two", form, ALL)
        assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()

    def test_an_earlier_error_is_not_forgotten(self, tmp_path: Path, form: str) -> None:
        self.write(tmp_path / "file", form, ALL)
        assert self.write(tmp_path / "file", form, [])

    def test_wherever_it_was_killed(self, tmp_path: Path, form: str) -> None:
        path = tmp_path / "file"
        self.write(path, form, ALL)
        whole = path.read_bytes()
        for end in range(len(whole)):
            path.write_bytes(whole[:end])
            self.write(path, form, ALL)
            assert path.read_bytes() == whole

    @pytest.mark.parametrize("content", ["not ours\n", '{"a": 1}\n', "[1]\n", "path,label\n", "\n"])
    def test_a_file_of_something_else_is_left_alone(
        self, tmp_path: Path, form: str, content: str
    ) -> None:
        path = tmp_path / "file"
        path.write_text(content)
        with pytest.raises(SettingsError, match="line 1 is no result"):
            self.write(path, form, ALL)
        assert path.read_text() == content

    def test_an_unwritable_place(self, tmp_path: Path, form: str) -> None:
        with pytest.raises(SettingsError, match="cannot write"):
            self.write(tmp_path / "none" / "file", form, ALL)


def test_a_table_of_another_width_is_left_alone(tmp_path: Path) -> None:
    with open_results(tmp_path / "file", "csv", 1) as results:
        results.write(GOOD)
    with pytest.raises(SettingsError), open_results(tmp_path / "file", "csv", 2):
        pass


def test_a_file_of_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError), open_results(tmp_path / "file", "text", 1):
        pass
    assert not (tmp_path / "file").exists()


def test_a_long_unfinished_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(json_line(GOOD, 1) + "\n" + "x" * 200_000)
    with open_results(path, "json", 1) as results:
        assert GOOD["path"] in results.done
    assert path.read_text() == json_line(GOOD, 1) + "\n"


def test_done_knows_what_it_was_given_and_nothing_else() -> None:
    done = Done(f"photo {number}" for number in range(1000))
    assert len(done) == 1000
    assert all(f"photo {number}" in done for number in range(1000))
    assert not any(f"photo {number}" in done for number in range(1000, 2000))
    assert "photo" not in Done()
