import logging
import sys
from pathlib import Path

import pytest

from icon_classifier.images import read_image
from icon_classifier.page.examples import FOLDER, MAX_EXAMPLES, find_examples
from tests.support.pictures import encode, gradient


def test_examples_of_fastbook_come_first(tmp_path: Path) -> None:
    examples = find_examples(["Cat", "grizzly_bear"], tmp_path)
    assert [example.name for example in examples] == ["grizzly", "cat"]
    assert max(read_image(examples[0].thumbnail).size) == 96
    assert "fastbook" not in sys.modules


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["black", "grizzly", "teddy"], ["grizzly"]),
        (["dog", "cat"], ["cat"]),
        (["category", "teddy_bear"], []),
        (["False", "True"], []),
    ],
)
def test_examples_of_fastbook_are_offered_only_where_a_class_fits(
    labels: list[str], names: list[str], tmp_path: Path
) -> None:
    assert [example.name for example in find_examples(labels, tmp_path)] == names


def test_examples_of_the_maintainer_are_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "my_bear.png").write_bytes(encode(gradient()))
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "README.md").write_text("about")
    with caplog.at_level(logging.WARNING):
        examples = find_examples(["grizzly"], tmp_path)
    assert [example.name for example in examples] == ["grizzly", "my bear"]
    assert "broken.jpg" in caplog.text


def test_examples_are_at_most_twelve_and_no_other_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    for index in range(MAX_EXAMPLES + 3):
        (folder / f"{index:02}.png").write_bytes(encode(gradient()))
    (folder / "other.png").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        assert len(find_examples(["grizzly"], tmp_path)) == MAX_EXAMPLES
    assert not caplog.records


def test_examples_without_fastbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert find_examples(["grizzly"], tmp_path) == ()
