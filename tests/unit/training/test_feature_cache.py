import logging
import os
from pathlib import Path

import numpy as np
import pytest

from icon_classifier.training.feature_cache import Looked, digests


def some(*names: str) -> dict[str, np.ndarray]:
    return {name: np.full(4, index, np.float32) for index, name in enumerate(names)}


def test_what_was_seen_is_known_again(tmp_path: Path) -> None:
    Looked(tmp_path / "features", "net 64 px").write(some("a", "b"))
    known = Looked(tmp_path / "features", "net 64 px").read()
    assert list(known) == ["a", "b"]
    np.testing.assert_array_equal(known["b"], [1, 1, 1, 1])
    assert known["b"].dtype == np.float32


def test_another_network_or_size_knows_nothing(tmp_path: Path) -> None:
    Looked(tmp_path, "net 64 px").write(some("a"))
    assert Looked(tmp_path, "net 96 px").read() == {}


def test_photos_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    looked = Looked(tmp_path, "net")
    looked.write(some("a", "b"))
    looked.write(some("b"))
    assert list(looked.read()) == ["b"]


def test_only_the_newest_files_stay(tmp_path: Path) -> None:
    for index in range(12):
        looked = Looked(tmp_path, f"net {index}")
        looked.write(some("a"))
        os.utime(looked.file, (index, index))
    assert len(list(tmp_path.iterdir())) == 8
    assert Looked(tmp_path, "net 0").read() == {}
    assert Looked(tmp_path, "net 11").read()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut short"])
def test_damaged_file_is_done_without(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    looked = Looked(tmp_path, "net")
    looked.file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert looked.read() == {}
    assert "is not used" in caplog.text
    looked.write(some("a"))
    assert list(looked.read()) == ["a"]


def test_file_of_something_else_is_done_without(tmp_path: Path) -> None:
    looked = Looked(tmp_path, "net")
    np.savez(looked.file, digests=np.array(["a", "b"]), features=np.zeros((3, 4), np.float32))
    assert looked.read() == {}


def test_folder_that_cannot_be_written_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "features").write_text("a file in the way")
    with caplog.at_level(logging.WARNING):
        Looked(tmp_path / "features", "net").write(some("a"))
    assert "not kept" in caplog.text


def test_photos_are_known_by_their_contents(tmp_path: Path) -> None:
    for name, content in (("a.png", b"1"), ("b.png", b"1"), ("c.png", b"2")):
        (tmp_path / name).write_bytes(content)
    first, second, third = digests(sorted(tmp_path.iterdir()))
    assert first == second != third
