"""Benchmarks write their own sections of docs/benchmarks.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import bench_visitors
from bench.support import report
from bench.support.report import Row
from scripts.environment import ROOT

BENCHMARKS = sorted((ROOT / "bench").glob("bench_*.py"))


def test_each_benchmark_has_a_section_and_each_section_a_benchmark() -> None:
    page = report.PAGE.read_text()
    names = [path.stem for path in BENCHMARKS]
    assert sorted(re.findall(r"<!-- (\w+) -->", page)) == names
    assert sorted(re.findall(r"<!-- end of (\w+) -->", page)) == names
    for name in names:
        changed = report.replace_section(page, name, "other figures\n")
        assert f"<!-- {name} -->\nother figures\n<!-- end of {name} -->\n" in changed
        section = re.search(f"<!-- {name} -->\n(`python -m bench.{name}\\b.*?)<!--", page, re.S)
        assert section, name
        assert report.replace_section(changed, name, section[1]) == page


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_each_benchmark_can_write_its_section(path: Path) -> None:
    text = path.read_text()
    assert "report.parser(" in text
    assert "report.publish(options, " in text


def test_each_benchmark_has_a_target() -> None:
    targets = re.findall(r"-m bench\.(\w+)", (ROOT / "Makefile").read_text())
    assert sorted(targets) == [path.stem for path in BENCHMARKS]


def test_visitors_figures_become_a_row_for_each_and_a_column_for_each_page() -> None:
    found = [
        bench_visitors.at_the_same_time("20 click", [3.0, 1.0, 2.0]),
        {("memory", "MB", ""): 5.0},
    ]
    assert bench_visitors.rows_of(found) == [
        Row("20 click at the same time, median", "s", [2.0, None]),
        Row("20 click at the same time, 95th percentile", "s", [3.0, None], "≤ 0.5"),
        Row("memory", "MB", [None, 5.0]),
    ]


def test_section_without_its_markers_is_refused() -> None:
    for page in ("", "<!-- a -->\n", "<!-- a -->\n<!-- end of a -->\n" * 2):
        with pytest.raises(ValueError, match="expected the markers of a once"):
            report.replace_section(page, "a", "figures")


@pytest.mark.parametrize("write", [True, False])
def test_section_is_written_only_where_that_is_asked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write: bool,
) -> None:
    before = "# Title\n<!-- bench_a -->\nold\n<!-- end of bench_a -->\nBy hand.\n"
    page = tmp_path / "benchmarks.md"
    page.write_text(before)
    arguments = [str(tmp_path), "--rounds", "2", *(["--write"] if write else [])]
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr("sys.argv", ["bench/bench_a.py", *arguments])
    parser = report.parser("A benchmark.")
    parser.add_argument("photos")
    parser.add_argument("--rounds")
    report.publish(parser.parse_args(), ["a table"])

    command = f"`python -m bench.bench_a {tmp_path.name} --rounds 2`, "
    assert capsys.readouterr().out.startswith(command)
    after = page.read_text()
    if write:
        expected = f"# Title\n<!-- bench_a -->\n{re.escape(command)}.* cores, .*:\n\na table\n"
        assert re.fullmatch(f"{expected}<!-- end of bench_a -->\nBy hand.\n", after)
    else:
        assert after == before


def test_table_has_ratios_and_verdicts() -> None:
    rows = [
        Row("time", "s", [0.5, 2, 4], "≤ 0.4"),
        Row("rate", "", [1234.5, 300.4], "≥ 4 times"),
        Row("size", "kB", [0, None], "≤ 0"),
        Row("p95", "ms", [12.34, 50], "≤ 0.5 times"),
        Row("nothing", "s", [None, 1], "≤ 1"),
    ]
    assert report.table(["ours", "rival", "other"], rows).splitlines() == [
        "|  | ours | rival | other | ratio to rival | target |  |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| time | 0.5 s | 2 s | 4 s | 0.25 | ≤ 0.4 s | **not reached** |",
        "| rate | 1,234 | 300 |  | 4.11 | ≥ 4 times | reached |",
        "| size | 0 kB |  |  |  | ≤ 0 kB | reached |",
        "| p95 | 12.3 ms | 50 ms |  | 0.25 | ≤ 0.5 times | reached |",
        "| nothing |  | 1 s |  |  | ≤ 1 s | not measured |",
    ]


def test_table_without_rivals_and_targets_has_neither_column() -> None:
    lines = report.table(["measured"], [Row("photos", "", [7])]).splitlines()
    assert lines == ["|  | measured |", "| --- | --- |", "| photos | 7 |"]
