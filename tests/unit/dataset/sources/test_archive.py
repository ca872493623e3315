import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from icon_classifier.dataset.sources.archive import (
    EMPTY_FOLDER,
    ArchiveLimits,
    Content,
    is_archive,
    read_archive,
    read_folder,
)
from icon_classifier.errors import DatasetError

FILES = {"set/cat/1.jpg": b"one", "set/dog/2.jpg": b"two", "set/empty.txt": b""}


def tar_of(files: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folder = tarfile.TarInfo("set")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for other in others:
            tar.addfile(other)
    return buffer.getvalue()


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        packed.mkdir("set")
        for name, data in files.items():
            packed.writestr(name, data)
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def read(folder: Path, data: bytes, **options: object) -> dict[str, Content]:
    file = folder / "archive"
    file.write_bytes(data)
    found = read_archive(file, lambda _: True, **options)  # type: ignore[arg-type]
    return {str(path): data for path, data in found}


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "tar": lambda: tar_of(FILES),
    "tar.gz": lambda: gzip.compress(tar_of(FILES)),
    "tar.bz2": lambda: bz2.compress(tar_of(FILES)),
    "tar.xz": lambda: lzma.compress(tar_of(FILES)),
    "zip": lambda: zip_of(FILES),
    "zip, stored": lambda: zip_of(FILES, zipfile.ZIP_STORED),
}


@pytest.mark.parametrize("pack", ARCHIVES.values(), ids=ARCHIVES)
def test_files_are_read(tmp_path: Path, pack: Callable[[], bytes]) -> None:
    assert read(tmp_path, pack()) == FILES


def test_paths_are_relative(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(zip_of({"a\\b\\c.jpg": b"1"}))

    assert next(read_archive(tmp_path / "x", lambda _: True))[0] == PurePosixPath("a/b/c.jpg")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/../../b.jpg", "/etc/passwd", "C:\\x.jpg", "C:x.jpg", "..\\x"]
)
@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_name_that_leaves_the_folder_is_refused(
    tmp_path: Path, name: str, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    with pytest.raises(DatasetError, match="leaves the folder; do not trust this archive"):
        read(tmp_path, pack({name: b"1"}))


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_colon_that_follows_no_drive_letter_is_a_letter(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    files = {"Trip 12:30/cat/1.jpg": b"1", "7:a.jpg": b"2", "é:/b.jpg": b"3", "a/C:/4.jpg": b"4"}

    assert read(tmp_path, pack(files)) == files


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_skipped(tmp_path: Path, kind: bytes) -> None:
    data = tar_of(FILES, link("set/cat/3.jpg", "/etc/passwd", kind))

    assert read(tmp_path, data) == FILES


def test_link_in_a_zip_is_skipped(tmp_path: Path) -> None:
    buffer = io.BytesIO(zip_of(FILES))
    with zipfile.ZipFile(buffer, "a") as packed:
        info = zipfile.ZipInfo("set/cat/3.jpg")
        info.create_system = 3
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "/etc/passwd")

    assert read(tmp_path, buffer.getvalue()) == FILES


def test_large_file_is_not_read(tmp_path: Path) -> None:
    data = zip_of({**FILES, "set/cat/film.mp4": bytes(25 * 2**20 + 1)})

    assert read(tmp_path, data) == {**FILES, "set/cat/film.mp4": "larger than 25 MB"}


def test_file_that_is_not_wanted_is_only_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(zip_of(FILES))

    found = read_archive(tmp_path / "x", lambda path: path.suffix == ".txt")

    assert {str(path): data for path, data in found} == {
        "set/cat/1.jpg": None,
        "set/dog/2.jpg": None,
        "set/empty.txt": b"",
    }


def zip_of_windows(names: list[str], encoding: str) -> bytes:
    """A zip with names in the encoding of a country, and without the flag of UTF-8."""
    plain = {f"{number:02}" * 20: name.encode(encoding) for number, name in enumerate(names)}
    data = zip_of({key[: len(name)]: b"1" for key, name in plain.items()}, zipfile.ZIP_STORED)
    for key, name in plain.items():
        data = data.replace(key[: len(name)].encode(), name)
    return data


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("cp932", ["猫/写真_1.jpg", "犬/写真_1.jpg"]),
        ("cp932", ["ソフト/表.jpg", "カメラ/ねこ.jpg"]),  # with a backslash as a second byte
        ("gb18030", ["猫/照片_1.jpg", "狗/照片_1.jpg"]),
        ("gb18030", ["动物图片/小狗.jpg", "动物图片/花.jpg"]),
        ("cp950", ["貓咪/照片.jpg", "動物/小狗的照片.jpg"]),
        ("utf-8", ["Beyonce\u0301/1.jpg", "Käfer/1.jpg"]),
        ("utf-8", ["猫/1.jpg", "собака/1.jpg"]),
        ("cp437", ["Käfer/1.jpg", "Löwe/1.jpg", "Bär/été.jpg"]),
    ],
)
def test_names_in_a_zip_of_windows_are_decoded(
    tmp_path: Path, encoding: str, names: list[str]
) -> None:
    found = read(tmp_path, zip_of_windows(names, encoding))

    assert set(found) - {"set"} == {unicodedata.normalize("NFC", name) for name in names}


def test_folder_is_read_with_the_folders_that_links_lead_to(tmp_path: Path) -> None:
    given = tmp_path / "given"
    for name in ("given/cat/1.jpg", "elsewhere/2.jpg", "given/gathered/photos/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (given / "dog").symlink_to(tmp_path / "elsewhere")
    (given / "cat" / "again").symlink_to(given)
    (given / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(given / "cat" / "pipe")
    (given / "fox").mkdir()

    found = read_folder(given, lambda _: True, skip=given / "gathered")

    assert {str(path): content for path, content in found} == {
        "cat/1.jpg": b"1",
        "cat/gone.jpg": "not a file",
        "cat/pipe": "not a file",
        "dog/2.jpg": b"1",
        "fox": EMPTY_FOLDER,
    }


def test_web_page_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"<html>404</html>")
    (tmp_path / "set").write_bytes(zip_of(FILES))

    assert not is_archive(tmp_path / "page")
    assert is_archive(tmp_path / "set")


@pytest.mark.parametrize("pack", ARCHIVES.values(), ids=ARCHIVES)
@pytest.mark.parametrize("limits", [ArchiveLimits(max_bytes=5), ArchiveLimits(max_files=2)])
def test_bomb_is_stopped(tmp_path: Path, pack: Callable[[], bytes], limits: ArchiveLimits) -> None:
    with pytest.raises(DatasetError, match="unpacks to more than"):
        read(tmp_path, pack(), limits=limits)


def test_bomb_is_stopped_before_it_is_unpacked(tmp_path: Path) -> None:
    # The directory announces 2 GB: that is enough to stop, before a byte of it is read.
    chunk = zip_of({"set/cat/1.jpg": bytes(2**20)})
    with zipfile.ZipFile(io.BytesIO(chunk)) as packed:
        info = packed.infolist()[1]
    lie = chunk.replace(struct.pack("<L", info.file_size), struct.pack("<L", 2**31))

    with pytest.raises(DatasetError, match="unpacks to more than 1000000000 bytes"):
        read(tmp_path, lie, limits=ArchiveLimits(max_bytes=10**9))


def test_file_longer_than_announced_is_refused(tmp_path: Path) -> None:
    data = zip_of({"set/cat/1.jpg": b"x" * 5000}, zipfile.ZIP_STORED)
    lie = data.replace(struct.pack("<LL", 5000, 5000), struct.pack("<LL", 5000, 50))

    with pytest.raises(DatasetError, match=r"damaged|expected 50 bytes"):
        read(tmp_path, lie)


def test_announced_giant_name_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 200 * 2**20
    header = info.tobuf(tarfile.GNU_FORMAT)

    with pytest.raises(DatasetError, match="damaged"):
        read(tmp_path, header + bytes(10_000))


DAMAGED: dict[str, bytes] = {
    "text": b"<html>not found</html>",
    "empty": b"",
    "cut tar.gz": gzip.compress(tar_of({"a/b.jpg": bytes(range(256)) * 100}))[:-60],
    "cut tar": tar_of({"a/b.jpg": bytes(20_000)})[:9000],
    "cut zip": zip_of(FILES)[:-30],
    "broken zip": zip_of({"a/b.jpg": b"x" * 500}, zipfile.ZIP_STORED).replace(b"x" * 9, b"y" * 9),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damaged_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DatasetError, match="is damaged or not a supported archive"):
        read(tmp_path, data)


def test_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(zip_of({"a/b.jpg": b"1"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(signature) + offset] |= 1  # "encrypted"

    with pytest.raises(DatasetError, match="password"):
        read(tmp_path, bytes(data))
