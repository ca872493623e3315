import logging
import os
from pathlib import Path

import numpy as np
import pytest

from icon_classifier.training.feature_cache import FeatureCache


def some(*names: str) -> dict[str, np.ndarray]:
    return {name: np.full(4, index, np.float32) for index, name in enumerate(names)}


def test_features_are_read_back(tmp_path: Path) -> None:
    FeatureCache(tmp_path / "features", "net 64 px").write(some("a", "b"))
    known = FeatureCache(tmp_path / "features", "net 64 px").read()
    assert list(known) == ["a", "b"]
    np.testing.assert_array_equal(known["b"], [1, 1, 1, 1])
    assert known["b"].dtype == np.float32


def test_another_key_finds_nothing(tmp_path: Path) -> None:
    FeatureCache(tmp_path, "net 64 px").write(some("a"))
    assert FeatureCache(tmp_path, "net 96 px").read() == {}


def test_writing_replaces_what_was_cached(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "net")
    cache.write(some("a", "b"))
    cache.write(some("b"))
    assert list(cache.read()) == ["b"]


def test_only_the_newest_files_are_kept(tmp_path: Path) -> None:
    for index in range(12):
        cache = FeatureCache(tmp_path, f"net {index}")
        cache.write(some("a"))
        os.utime(cache.file, (index, index))
    assert len(list(tmp_path.iterdir())) == 8
    assert FeatureCache(tmp_path, "net 0").read() == {}
    assert FeatureCache(tmp_path, "net 11").read()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut short"])
def test_damaged_file_is_ignored_and_replaced(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FeatureCache(tmp_path, "net")
    cache.file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert cache.read() == {}
    assert "is not used" in caplog.text
    cache.write(some("a"))
    assert list(cache.read()) == ["a"]


def test_file_whose_arrays_do_not_match_is_ignored(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "net")
    np.savez(cache.file, digests=np.array(["a", "b"]), features=np.zeros((3, 4), np.float32))
    assert cache.read() == {}


def test_unwritable_folder_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "features").write_text("a file in the way")
    with caplog.at_level(logging.WARNING):
        FeatureCache(tmp_path / "features", "net").write(some("a"))
    assert "not kept" in caplog.text
