"""Files that would cost a decoder far more than their pixels do are refused, and no others."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from icon_classifier.errors import ImageError
from icon_classifier.images import read_image
from icon_classifier.structure import check_structure, deflate
from tests.support.costly_pictures import (
    box,
    chunk,
    coded,
    costly_files,
    grid_file,
    items,
    run_length_bmp,
    segment,
    tiff,
)
from tests.support.pictures import difference, encode, gradient

MAX_SECONDS = 0.5  # of work; 0.1 s are usual
COSTLY = dict(costly_files())


@pytest.mark.parametrize("name", COSTLY)
def test_costly_file_is_refused_before_decoding(name: str) -> None:
    started = time.process_time()
    with pytest.raises(ImageError):
        check_structure(COSTLY[name])
    assert time.process_time() - started < MAX_SECONDS


def photo(mode: str = "RGB", size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture with noise, whose coded data hold every byte."""
    noise = np.random.default_rng(0).integers(-20, 20, (size[1], size[0], 3))
    values = np.asarray(gradient(size=size), int) + noise
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert(mode)


JPEG = encode(photo(), "JPEG", progressive=True)
FRAMES = [photo(size=(64, 48)).rotate(turn) for turn in range(100)]
PALETTES = [frame.convert("P") for frame in FRAMES]
ANIMATED = {"save_all": True, "append_images": FRAMES[1:]}
EXTENDED_XMP = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000))
HONEST = {
    "JPEG whose scans are split by restart markers": encode(
        photo(), "JPEG", progressive=True, restart_marker_blocks=1
    ),
    "JPEG with an extended XMP of 20 MB": JPEG[:2] + EXTENDED_XMP * 300 + JPEG[2:],
    "JPEG with a profile of 15 MB": encode(photo(), "JPEG", icc_profile=bytes(15_000_000)),
    "JPEG with a video behind it": JPEG + bytes(range(256)) * 20_000 + b"\xff\xda" * 1000,
    "JPEG with 200 pictures behind it": JPEG * 200,
    "JPEG with fill behind it": JPEG + b"\xff" * 200_000,
    "JPEG with some bytes of nothing": JPEG[:20] + bytes(1000) + JPEG[20:],
    "MPO of 30 pictures": encode(photo(), "MPO", save_all=True, append_images=[photo()] * 29),
    "PNG with zeros behind it": encode(photo()) + bytes(2_000_000),
    "APNG": encode(FRAMES[0], "PNG", **ANIMATED),
    "GIF of 100 frames with a comment": encode(
        PALETTES[0], "GIF", comment=b"a comment " * 5000, save_all=True, append_images=PALETTES[1:]
    ),
    "animated WEBP": encode(FRAMES[0], "WEBP", method=0, **ANIMATED),
    "animated AVIF": encode(FRAMES[0], "AVIF", speed=10, **ANIMATED),
    "TIFF of 60 pages": encode(photo("L"), "TIFF", save_all=True, append_images=[photo("L")] * 59),
    "TIFF of 120 pages, jpeg": encode(
        photo(size=(64, 48)),
        "TIFF",
        compression="jpeg",
        save_all=True,
        append_images=FRAMES + FRAMES[:19],
    ),
    "BMP in runs": run_length_bmp(320, 240, b"\xff\5\x41\6\0\0" * 240 + b"\0\1"),
    "BMP in runs of one pixel": run_length_bmp(64, 64, (b"\1\5" * 64 + b"\0\0") * 64 + b"\0\1"),
    "TIFF of tiles": tiff([(322, 3, [16]), (323, 3, [16]), (324, 4, [8] * 16)]),
    "TIFF without sizes of its one strip": tiff([(279, 4, [])]),
    "HEIC of ten pictures": encode(FRAMES[0], "HEIF", save_all=True, append_images=FRAMES[:9]),
}
LARGE = photo(size=(2000, 1400))
HONEST["PNG of 6 MB"] = encode(LARGE, compress_level=1)
HONEST["PNG of 8 MB, not compressed"] = encode(LARGE, compress_level=0)
HONEST["TIFF of 6 MB, deflated"] = encode(LARGE, "TIFF", compression="tiff_adobe_deflate")
for _compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "lzma", "zstd", None):
    HONEST[f"TIFF, {_compression}"] = encode(photo(), "TIFF", compression=_compression)
for _compression in ("group3", "group4"):
    HONEST[f"TIFF, {_compression}"] = encode(photo("1"), "TIFF", compression=_compression)
for _kind in ("AVIF", "HEIF"):
    HONEST[f"{_kind} of 225 tiles"] = grid_file(_kind, 15, 64)
    HONEST[f"{_kind} with transparency"] = encode(photo("RGBA"), _kind)


@pytest.mark.parametrize("name", HONEST)
def test_honest_file_is_read(name: str) -> None:
    started = time.process_time()
    check_structure(HONEST[name])
    assert time.process_time() - started < 0.1
    assert read_image(HONEST[name]).mode == "RGB"


def test_large_honest_files_are_large_enough_to_be_sampled() -> None:
    assert min(len(HONEST[name]) for name in HONEST if "of 6 MB" in name) > deflate.MIN_BYTES


def test_look_at_25_mb_takes_milliseconds() -> None:
    """Noise in every format: it has the most bytes that look like something."""
    noise = np.random.default_rng(0).bytes(20_000_000).replace(b"\xff", b"\xfe")
    png = encode(gradient())
    data, needed = coded("AVIF", 64)
    coded_noise = noise[:12_000_000]
    place = [(0, len(data) + len(coded_noise))]
    size = box(b"ispe", struct.pack(">II", 64, 64), 0)
    files = {
        "JPEG": JPEG[:-2] + noise + JPEG[-2:],
        "PNG": png[:-12] + chunk(b"IDAT", noise) + png[-12:],
        "AVIF": items("AVIF", [(b"av01", place, [1])], [size, *needed], b"", data + coded_noise),
        "TIFF": tiff([], noise),
    }
    for name, file in files.items():
        started = time.process_time()
        check_structure(file)
        assert time.process_time() - started < 0.1, name


@pytest.mark.parametrize("name", [b"iCCP", b"zTXt", b"iTXt"])
def test_png_with_a_large_text_or_profile_is_read(name: str) -> None:
    """Browsers show them, and what they say is not used; it may even unpack to any size."""
    plain = encode(gradient())
    packed = zlib.compress(bytes(2**21))
    middle = b"\0\1\0\0\0" if name == b"iTXt" else b"\0\0"
    text = chunk(name, b"words" + middle + packed)
    for data in (plain[:33] + text * 200 + plain[33:], plain[:-12] + text + plain[-12:]):
        started = time.process_time()
        assert difference(read_image(data), gradient()) == 0
        assert time.process_time() - started < MAX_SECONDS


def test_png_with_texts_keeps_all_that_is_used() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "words", zip=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = gradient("P")
    kept = check_structure(encode(picture, exif=exif, pnginfo=info))
    with Image.open(io.BytesIO(kept)) as image:
        assert "Title" not in image.info
        assert image.info["transparency"] == picture.info["transparency"]
        assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize("length", range(40))
def test_every_beginning_of_a_file_is_checked_without_a_fault(length: int) -> None:
    """A file may end anywhere."""
    for file in (JPEG, encode(gradient()), *(encode(gradient(), kind) for kind in ("GIF", "BMP"))):
        check_structure(file[:length])
    for kind in ("TIFF", "WEBP", "AVIF", "HEIF"):
        file = encode(gradient(), kind)
        check_structure(file[: len(file) * length // 40])
