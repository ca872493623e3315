import hashlib
from pathlib import Path

import pytest

from icon_classifier.files import decode_text, replacing, sha256_of, write_file


def test_write_file_replaces_text_and_bytes(tmp_path: Path) -> None:
    target = tmp_path / "file"
    assert write_file(target, "ä").read_bytes() == "ä".encode()
    assert write_file(target, b"new").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = write_file(tmp_path / "file", "old")

    def fail_half_way() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "missing" / "file", "text")


def test_sha256_of_a_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "file", b"bytes")
    assert sha256_of(path) == hashlib.sha256(b"bytes").hexdigest()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Käfer\n".encode(), "Käfer\n"),
        (b"\xef\xbb\xbfa", "a"),
        ("Käfer 猫".encode("utf-16"), "Käfer 猫"),
        ("Käfer".encode("utf-16-le"), "Käfer"),
        ("Käfer".encode("utf-16-be"), "Käfer"),
        ("Käfer".encode("cp1252"), "Käfer"),
        (b"", ""),
        (b"\xff\xfea", "\ufffd"),
    ],
)
def test_text_of_any_program_is_decoded(data: bytes, text: str) -> None:
    assert decode_text(data) == text
