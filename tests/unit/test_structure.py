"""Files that would cost a decoder far more than their pixels do are refused, and no others."""

import contextlib
import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from icon_classifier.errors import ImageError
from icon_classifier.images import read_image
from icon_classifier.structure import checked_bytes, deflate
from tests.support.costly_pictures import (
    box,
    chunk,
    coded,
    costly_files,
    grid_file,
    items,
    refers,
    run_length_bmp,
    segment,
    tiff,
)
from tests.support.pictures import difference, encode, gradient

MAX_SECONDS = 0.5  # of work; 0.1 s are usual


def test_costly_files_are_refused_before_decoding() -> None:
    accepted, slow = [], []
    for name, file in costly_files():
        started = time.process_time()
        with contextlib.suppress(ImageError):
            checked_bytes(file)
            accepted.append(name)
        if time.process_time() - started > MAX_SECONDS:
            slow.append(name)
    assert not accepted
    assert not slow


@pytest.mark.parametrize(
    "references",
    [refers(b"dimg", 2, [1] * 100) + refers(b"dimg", 2, [9]) * 20, refers(b"cdsc", 1, [2]) * 400],
    ids=["tiles", "metadata"],
)
def test_references_to_an_item_of_60000_extents_are_added_up_fast(references: bytes) -> None:
    data, needed = coded("HEIF", 64)
    extents = struct.pack(">BBHHHH", 0x10, 0, 1, 1, 0, 60_000) + bytes(60_000)  # of no bytes
    file = items("HEIF", [(b"hvc1", [], [1])], needed, references, data, locations=extents)
    started = time.process_time()
    checked_bytes(file)
    assert time.process_time() - started < MAX_SECONDS


def photo(mode: str = "RGB", size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture with noise, whose coded data hold every byte."""
    noise = np.random.default_rng(0).integers(-20, 20, (size[1], size[0], 3))
    values = np.asarray(gradient(size=size), int) + noise
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert(mode)


JPEG = encode(photo(), "JPEG", progressive=True)


@pytest.fixture(scope="module")
def honest_files() -> dict[str, bytes]:
    """What each is, and its bytes."""
    frames = [photo(size=(64, 48)).rotate(turn) for turn in range(100)]
    palettes = [frame.convert("P") for frame in frames]
    animated = {"save_all": True, "append_images": frames[1:]}
    extended_xmp = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000))
    files = {
        "JPEG whose scans are split by restart markers": encode(
            photo(), "JPEG", progressive=True, restart_marker_blocks=1
        ),
        "JPEG with an extended XMP of 20 MB": JPEG[:2] + extended_xmp * 300 + JPEG[2:],
        "JPEG with a profile of 15 MB": encode(photo(), "JPEG", icc_profile=bytes(15_000_000)),
        "JPEG with a video behind it": JPEG + bytes(range(256)) * 20_000 + b"\xff\xda" * 1000,
        "JPEG with 200 pictures behind it": JPEG * 200,
        "JPEG with fill behind it": JPEG + b"\xff" * 200_000,
        "JPEG with some bytes of nothing": JPEG[:20] + bytes(1000) + JPEG[20:],
        "MPO of 30 pictures": encode(photo(), "MPO", save_all=True, append_images=[photo()] * 29),
        "PNG with zeros behind it": encode(photo()) + bytes(2_000_000),
        "APNG": encode(frames[0], "PNG", **animated),
        "GIF of 100 frames with a comment": encode(
            palettes[0],
            "GIF",
            comment=b"a comment " * 5000,
            save_all=True,
            append_images=palettes[1:],
        ),
        "animated WEBP": encode(frames[0], "WEBP", method=0, **animated),
        "animated AVIF": encode(frames[0], "AVIF", speed=10, **animated),
        "TIFF of 60 pages": encode(
            photo("L"), "TIFF", save_all=True, append_images=[photo("L")] * 59
        ),
        "TIFF of 120 pages, jpeg": encode(
            photo(size=(64, 48)),
            "TIFF",
            compression="jpeg",
            save_all=True,
            append_images=frames + frames[:19],
        ),
        "BMP in runs": run_length_bmp(320, 240, b"\xff\5\x41\6\0\0" * 240 + b"\0\1"),
        "BMP in runs of one pixel": run_length_bmp(64, 64, (b"\1\5" * 64 + b"\0\0") * 64 + b"\0\1"),
        "TIFF of tiles": tiff([(322, 3, [16]), (323, 3, [16]), (324, 4, [8] * 16)]),
        "TIFF without sizes of its one strip": tiff([(279, 4, [])]),
        "HEIC of ten pictures": encode(frames[0], "HEIF", save_all=True, append_images=frames[:9]),
    }
    large = photo(size=(2000, 1400))
    files["PNG of 6 MB"] = encode(large, compress_level=1)
    files["PNG of 8 MB, not compressed"] = encode(large, compress_level=0)
    files["TIFF of 6 MB, deflated"] = encode(large, "TIFF", compression="tiff_adobe_deflate")
    for codec in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "lzma", "zstd", None):
        files[f"TIFF, {codec}"] = encode(photo(), "TIFF", compression=codec)
    for codec in ("group3", "group4"):
        files[f"TIFF, {codec}"] = encode(photo("1"), "TIFF", compression=codec)
    for kind in ("AVIF", "HEIF"):
        files[f"{kind} of 225 tiles"] = grid_file(kind, 15, 64)
        files[f"{kind} with transparency"] = encode(photo("RGBA"), kind)
    return files


def test_honest_files_are_read(honest_files: dict[str, bytes]) -> None:
    for name, file in honest_files.items():
        started = time.process_time()
        checked_bytes(file)
        assert time.process_time() - started < 0.1, name
        assert read_image(file).mode == "RGB", name


def test_large_honest_files_are_large_enough_to_be_sampled(honest_files: dict[str, bytes]) -> None:
    sizes = [len(file) for name, file in honest_files.items() if "of 6 MB" in name]
    assert min(sizes) > deflate.MIN_BYTES


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
        checked_bytes(file)
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
    kept = checked_bytes(encode(picture, exif=exif, pnginfo=info))
    with Image.open(io.BytesIO(kept)) as image:
        assert "Title" not in image.info
        assert image.info["transparency"] == picture.info["transparency"]
        assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_every_beginning_of_a_file_is_checked_without_a_fault(kind: str) -> None:
    """A file may end anywhere."""
    file = encode(gradient(), kind)
    for part in range(40):
        checked_bytes(file[:part])
        checked_bytes(file[: len(file) * part // 40])
