import io
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from icon_classifier import images
from icon_classifier.errors import (
    DamagedImageError,
    EmptyImageError,
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    UnsupportedImageError,
)
from icon_classifier.images import (
    Limits,
    read_format,
    read_image,
    read_image_file,
    read_orientation,
    shrink,
    thumbnail,
)
from tests.support.costly_pictures import chunk, grid_file, segment, tiff
from tests.support.pictures import SIZE, difference, encode, gradient, turned
from tests.support.servers import ROOT


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_every_format_is_read(kind: str) -> None:
    image = read_image(encode(gradient(), kind))
    assert (image.mode, image.size) == ("RGB", SIZE)
    assert difference(image, gradient()) < 12  # GIF has 256 colours, the others lose less


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_frame_of_an_animation_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert difference(read_image(data), frames[0]) < 4


def test_memoryview_and_bytearray_are_read() -> None:
    data = encode(gradient())
    assert read_image(memoryview(data)).size == SIZE
    assert read_image(bytearray(data)).size == SIZE


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises a size and whose data holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(bytes(1000))),
            chunk(b"IEND", b""),
        ]
    )


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(b"", EmptyImageError, id="empty"),
        pytest.param(b"just some words, named photo.jpg", UnsupportedImageError, id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedImageError, id="svg"),
        pytest.param(b"%PDF-1.7\n1 0 obj\n", UnsupportedImageError, id="pdf"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n", UnsupportedImageError, id="eps"),
        pytest.param(b"\x80\x04\x95cos\nsystem\n.", UnsupportedImageError, id="pickle"),
        pytest.param(bytes(25 * 2**20 + 1), ImageTooLargeError, id="26 MB"),
        pytest.param(png_of(10_000, 6_000), ImageTooLargeError, id="60 megapixels"),
        pytest.param(png_of(60_000, 60_000), ImageTooLargeError, id="bomb"),
        pytest.param(png_of(100, 100), DamagedImageError, id="missing data"),
        pytest.param(png_of(6_000_000, 8), ImageTooLargeError, id="a thin line"),
        pytest.param(encode(gradient("RGB", (7, 90))), ImageTooSmallError, id="7 pixels wide"),
        pytest.param(encode(gradient(), "JPEG")[:900], DamagedImageError, id="truncated"),
    ],
)
def test_each_fault_has_its_error(data: bytes, kind: type[ImageError]) -> None:
    with pytest.raises(kind) as caught:
        read_image(data)
    assert caught.value.words.endswith(".")
    assert "/" not in caught.value.words


def test_limits_of_the_caller_are_kept() -> None:
    data = encode(gradient())
    with pytest.raises(ImageTooLargeError):
        read_image(data, Limits(max_bytes=100))
    with pytest.raises(ImageTooLargeError):
        read_image(data, Limits(max_pixels=100))
    with pytest.raises(ImageTooSmallError):
        read_image(data, Limits(min_side=65))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_random_bytes_raise_only_our_errors(kind: str) -> None:
    """Mutated files give a picture or one of our errors."""
    chance = random.Random(kind)
    good = encode(gradient(), kind)
    outcomes = set()
    for _ in range(150):
        data = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(min(len(data), 400))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        try:
            assert read_image(data).mode == "RGB"
            outcomes.add("picture")
        except ImageError:
            outcomes.add("error")
    assert outcomes == {"picture", "error"}


@pytest.mark.parametrize("name", ["missing.jpg", ".", "nul\0.jpg"])
def test_file_that_cannot_be_opened_is_an_image_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError):
        read_image_file(tmp_path / name)


def test_read_image_file_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "photo.txt"
    path.write_bytes(encode(gradient()))
    assert read_image_file(str(path)).size == SIZE
    with pytest.raises(ImageTooLargeError):
        read_image_file(path, Limits(max_bytes=100))


def test_thumbnail_keeps_nothing_but_the_picture() -> None:
    photo = read_image(turned(6))
    small = Image.open(io.BytesIO(thumbnail(photo, 48)))
    assert small.format == "JPEG"
    assert small.size == (32, 48)
    assert not small.getexif()
    assert photo.size == (SIZE[1], SIZE[0])


def test_shrink_keeps_the_shape_and_never_enlarges() -> None:
    photo = Image.new("RGB", (400, 200))
    photo.info["exif"] = b"a secret"
    assert shrink(photo, 100).size == (100, 50)
    small = shrink(photo, 1000)
    assert small.size == photo.size
    assert small is not photo
    assert small.info == {}


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA", "I;16"])
def test_modes_of_png_become_rgb(mode: str) -> None:
    image = read_image(encode(gradient(mode)))
    assert (image.mode, image.size) == ("RGB", SIZE)


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "CMYK"), ("TIFF", "CMYK"), ("TIFF", "F")])
def test_other_modes_become_rgb(kind: str, mode: str) -> None:
    assert read_image(encode(gradient(mode), kind)).mode == "RGB"


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_grey_is_scaled_not_clipped(mode: str) -> None:
    image = read_image(encode(gradient(mode), "TIFF"))
    expected = np.linspace(0, 255, SIZE[0])
    assert np.abs(np.asarray(image)[0, :, 0] - expected).max() <= 1


@pytest.mark.parametrize("mode", ["L", "I;16", "F"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_grey_tiff_whose_zero_is_white_is_inverted(mode: str, compression: str | None) -> None:
    plain = gradient(mode, (256, 64))
    options = {} if compression is None else {"compression": compression}
    data = bytearray(encode(plain, "TIFF", **options))
    place = data.index(struct.pack("<HHIH", 262, 3, 1, 1))  # photometric interpretation
    struct.pack_into("<HHIH", data, place, 262, 3, 1, 0)
    expected = 255 - np.asarray(read_image(encode(plain, "TIFF", **options)), int)
    assert np.abs(np.asarray(read_image(bytes(data)), int) - expected).max() <= 1


def test_bmp_that_is_transparent_everywhere_is_opaque() -> None:
    """Its writer left the fourth byte of each pixel unused; with one value in it, it is alpha."""
    head = struct.pack("<IHHI", 54 + 84 + 4 * 256, 0, 0, 54 + 84)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    size = struct.pack("<IiiHHIIiiII", 124, 16, 16, 1, 32, 3, 4 * 256, 0, 0, 0, 0)
    bmp = b"BM" + head + size + masks + bytes(68)
    grey = b"\x40\x50\x60\0"
    assert read_image(bmp + grey * 256).getpixel((3, 3)) == (0x60, 0x50, 0x40)
    alpha = read_image(bmp + grey * 255 + b"\x40\x50\x60\xff")
    assert alpha.getpixel((3, 3)) == (255, 255, 255)
    assert alpha.getpixel((15, 0)) == (0x60, 0x50, 0x40)


def test_too_little_memory_is_too_large() -> None:
    """In a process that may take 8 MB more than it has; libheif says so in words only."""
    script = """
import io, resource, sys
from PIL import Image
from icon_classifier.errors import ImageTooLargeError
from icon_classifier.images import read_image
from tests.support.costly_pictures import grid_file
files = [grid_file("HEIF", 30, 64)]
for kind in ("JPEG", "PNG"):
    file = io.BytesIO()
    Image.new("RGB", (4000, 3000)).save(file, kind)
    files.append(file.getvalue())
used = [line for line in open("/proc/self/status") if line.startswith("VmData:")]
limit = 1024 * int(used[0].split()[1]) + 8_000_000
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for file in files:
    try:
        read_image(file)
    except ImageTooLargeError:
        print("too large")
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("the memory of a process cannot be told here")
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert child.stdout == "too large\n" * 3


def test_heic_of_a_phone_is_halved() -> None:
    """In strips, past Pillow, whose picture of 48 megapixels would take 190 MB more."""
    photo = read_image(grid_file("HEIF", 10, 512, shown=512))
    assert photo.size == (2560, 2560)
    for point in ((0, 0), (2559, 0), (1280, 2559)):
        red, green, blue = photo.getpixel(point)
        assert red > 250
        assert green < 5
        assert blue < 5


@pytest.mark.parametrize(("options", "most"), [({"chroma": 422}, 32), ({"chroma": 444}, 29)])
def test_pixels_of_a_heic_are_limited_by_the_memory_of_its_planes(
    options: dict[str, int], most: int
) -> None:
    """libheif keeps them twice, and as RGB."""
    with pytest.raises(ImageTooLargeError, match=f"at most {most}"):
        read_image(grid_file("HEIF", 12, 512, shown=512, **options))


def test_pixels_of_a_heic_are_limited_by_depth_and_transparency() -> None:
    for mode, most in (("RGB;16", 36), ("RGBA", 32), ("RGBA;16", 22)):
        values = np.zeros((64, 64, len(mode.split(";")[0])), np.uint16 if ";" in mode else np.uint8)
        file = io.BytesIO()
        pillow_heif.from_bytes(mode, (64, 64), values.tobytes()).save(file)
        data = file.getvalue()
        assert read_image(data).size == (64, 64)
        sizes = struct.pack(">II", 64, 64), struct.pack(">II", 6100, 6100)
        with pytest.raises(ImageTooLargeError, match=f"at most {most}"):
            read_image(data.replace(*sizes))


def test_pixels_are_limited_by_the_memory_of_the_decoder() -> None:
    small = Image.new("RGB", (64, 64))
    jpeg = bytearray(encode(small, "JPEG", progressive=True, subsampling=0))
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc2") + 5, 6100, 6100)
    # The sides of a lossless WebP, less one, are two numbers of 14 bits.
    webp = bytearray(encode(small, "WEBP", lossless=True))
    struct.pack_into("<I", webp, webp.index(b"VP8L") + 9, 3849 | 3849 << 14)
    colour = [(258, 3, [8] * 3), (277, 3, [3]), (262, 3, [2])]
    for data, most in (
        (jpeg, 36),
        (webp, 14),
        (tiff([(256, 4, [6700]), (257, 4, [6700]), (258, 3, [32]), (339, 3, [3])]), 41),
        (tiff([*colour, (256, 4, [6100]), (257, 4, [6100]), (274, 3, [6])]), 36),
    ):
        with pytest.raises(ImageTooLargeError, match=f"at most {most}...... pixels"):
            read_image(data)


def test_pixels_of_a_tiff_are_limited_by_the_memory_of_its_pieces() -> None:
    tags = [(256, 4, [7000]), (257, 4, [6000]), (278, 4, [6000]), (259, 3, [8])]
    tags += [(258, 3, [8, 8, 8]), (277, 3, [3]), (262, 3, [2])]
    with pytest.raises(ImageTooLargeError):  # one strip of 126 MB beside 168 MB of pixels
        read_image(tiff(tags))
    with pytest.raises(DamagedImageError):  # no pixels in it, but few enough
        read_image(tiff([*tags, (278, 4, [64])]))
    turned = [*tags, (256, 4, [60_000]), (257, 4, [500]), (278, 4, [500]), (274, 3, [6])]
    with pytest.raises(ImageTooLargeError):  # a strip that is as wide as the picture before
        read_image(tiff(turned))
    tile = [(322, 4, [40_000]), (323, 4, [40_000]), (324, 4, [8]), (325, 4, [4096])]
    for compression in (1, 8):
        with pytest.raises(ImageTooLargeError):
            read_image(tiff([*tile, (259, 3, [compression])]))
    with pytest.raises(ImageTooLargeError):  # float pixels, of which copies are made
        read_image(tiff([*tags[:4], (258, 3, [32]), (339, 3, [3]), (278, 4, [64])]))


def test_float_grey_of_nan_and_infinity_is_read() -> None:
    values = np.full((16, 16), np.nan, np.float32)
    values[0] = np.inf
    assert read_image(encode(Image.fromarray(values), "TIFF")).mode == "RGB"


def test_transparency_becomes_white() -> None:
    picture = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert read_image(encode(picture)).getpixel((3, 3)) == (255, 255, 255)
    picture.putalpha(128)
    red, green, blue = np.asarray(read_image(encode(picture)))[3, 3]
    assert red == 255
    assert abs(int(green) - 127) <= 1
    assert green == blue


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone(orientation: int) -> None:
    upright = gradient()
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    lying = upright if undo is None else upright.transpose(Image.Transpose(undo))
    image = read_image(turned(orientation, lying))
    assert image.size == SIZE
    assert difference(image, upright) < 4


BROKEN_EXIF = [
    b"II*\0\xff\xff\xff\xff",
    b"b'Exif\\x00\\x00MM\\x00*'",
    b"\0\x08\0\2\1\x12\0\3ab",
    b"MM",
]


@pytest.mark.parametrize("exif", BROKEN_EXIF)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_turns_nothing(kind: str, exif: bytes) -> None:
    exif = exif if kind == "PNG" else b"Exif\0\0" + exif
    plain = encode(gradient(), kind, **({"dpi": (72, 72)} if kind == "JPEG" else {}))
    if kind == "JPEG":
        data = plain[:20] + segment(0xE1, exif) + plain[20:]
    elif kind == "PNG":
        data = plain[:33] + chunk(b"eXIf", exif) + plain[33:]
    else:
        data = encode(gradient(), kind, exif=exif)
    image = read_image(data)
    assert image.size == SIZE
    assert difference(image, gradient()) < 12
    with Image.open(io.BytesIO(data)) as opened:
        assert read_orientation(opened) == 1


def test_format_is_read_from_the_header() -> None:
    assert read_format(encode(gradient(), "TIFF")) == "TIFF"
    assert read_format(encode(gradient(), "JPEG")[:900]) == "JPEG"
    avif = encode(gradient(), "AVIF")
    for data in (b"just some words", b"", avif.replace(b"iloc", b"xloc")):
        with pytest.raises(ImageError):
            read_format(data)


def test_side_decodes_a_jpeg_to_a_smaller_size() -> None:
    large = gradient(size=(800, 600))
    assert read_image(encode(large, "JPEG"), side=150).size == (200, 150)
    assert read_image(encode(large, "PNG"), side=150).size == (800, 600)
    assert read_image(turned(6, large), side=150).size == (150, 200)


def test_large_pictures_are_halved_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = read_image(turned(6, gradient("RGB", (801, 643))))
    monkeypatch.setattr(images, "MAX_WHOLE_PIXELS", 1000)
    monkeypatch.setattr(images, "_ROWS", 64)
    halved = read_image(turned(6, gradient("RGB", (801, 643))))
    assert halved.size == (322, 401)
    assert difference(halved, plain.resize(halved.size)) < 2


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16", "L"])
def test_large_pictures_of_other_modes(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(gradient(mode, (300, 200)))
    plain = read_image(data)
    monkeypatch.setattr(images, "MAX_WHOLE_PIXELS", 1000)
    monkeypatch.setattr(images, "_ROWS", 64)
    assert difference(read_image(data), plain.reduce(2)) < 1.5
