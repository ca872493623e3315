"""More than a thousand files that no camera makes: cut off, forged, giant, or no picture at all.

The same files each time: whatever is left to chance comes from a seed.
"""

from __future__ import annotations

import io
import pickle
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator

from PIL import Image

import icon_classifier.images  # noqa: F401 - lets Pillow write HEIF
from tests.support.costly_pictures import chunk, costly_files, grid_file, webp_of_tables
from tests.support.pictures import encode, gradient

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
MOST = 25 * 2**20
MODES = (
    *("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBX"),
    *("RGBa", "La", "I;16", "I;16B", "I;16L"),
)

File = tuple[str, bytes]


def files(*, large: bool = True) -> Iterator[File]:
    """All of them, or those that are quickly made: what each is, and its bytes."""
    makers = [_truncated, _forged, _mutated, _rare, _tags, _no_pictures, costly_files]
    for make in [*makers, _bombs, _tiffs] if large else makers:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what makes them, not of what reads them
            made = list(make())
        yield from made


def some_files() -> Iterator[File]:
    """A small part of every kind, for ways in that take longer; at most 1 MB each."""
    for number, (name, data) in enumerate(files(large=False)):
        if number % 40 == 0 and len(data) < 2**20:
            yield name, data


def _good(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif.tobytes()} if kind in ("JPEG", "PNG", "WEBP", "AVIF", "HEIF") else {}
    return encode(gradient(), kind, **options)


def _truncated() -> Iterator[File]:
    """Cut off within the head byte by byte, and all along the rest."""
    for kind in KINDS:
        good = _good(kind)
        ends = {*range(1, 40, 3), *(len(good) * part // 16 for part in range(1, 16)), len(good) - 1}
        for end in sorted(ends):
            yield f"{kind} cut off after {end} bytes", good[:end]


def _forged() -> Iterator[File]:
    """Lengths, offsets and sizes that lie."""
    for kind in KINDS:
        good = _good(kind)
        for value in (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\1\0\0"):
            for place in range(4, 100, 8):
                data = good[:place] + value + good[place + 4 :]
                yield f"{kind} with {value.hex()} at {place}", data


def _mutated() -> Iterator[File]:
    for kind in KINDS:
        chance, good = random.Random(kind), _good(kind)
        for number in range(50):
            data = bytearray(good)
            for _ in range(chance.randint(1, 30)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            if chance.random() < 0.3:
                place = chance.randrange(len(data))
                data[place:place] = chance.randbytes(chance.randint(1, 5000))
            yield f"{kind} mutated, {number}", bytes(data)


def _rare() -> Iterator[File]:
    """Every mode of Pillow in every format that takes it."""
    for mode in MODES:
        picture = Image.new(mode, (40, 30))
        for kind in KINDS:
            try:
                yield f"{kind} of mode {mode}", encode(picture, kind)
            except (OSError, ValueError, KeyError):
                continue  # this format has no such mode


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, extra: bytes = b"") -> bytes:
    """A PNG of one colour, as many bytes packed as it takes: next to none."""
    bits = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * depth * width
    row, packer, packed = bytes(1 + (bits + 7) // 8), zlib.compressobj(1), []
    if width * height <= 60_000_000:
        packed = [packer.compress(row) for _ in range(height)]
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(3)) if colour == 3 else b""
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", head),
            palette,
            extra,
            chunk(b"IDAT", b"".join(packed) + packer.flush()),
            chunk(b"IEND", b""),
        ]
    )


def _bombs() -> Iterator[File]:
    """Small files that want to be large, many or endless."""
    for depth, colour in ((8, 2), (8, 6), (16, 6), (16, 0), (1, 0), (8, 3), (8, 4)):
        sizes = f"{depth} bits, colour type {colour}"
        yield f"PNG of 49 megapixels, {sizes}", png(7000, 7000, depth=depth, colour=colour)
        yield f"PNG of 4 gigapixels, {sizes}", png(65_536, 65_536, depth=depth, colour=colour)
    yield "PNG as wide as a number can say", png(2**31 - 1, 8)
    yield "PNG of one row", png(6_000_000, 8)
    bomb = zlib.compress(bytes(2**28), 9)
    yield "PNG whose profile unpacks to 256 MB", png(64, 64, extra=chunk(b"iCCP", b"x\0\0" + bomb))
    yield "PNG whose text unpacks to 256 MB", png(64, 64, extra=chunk(b"zTXt", b"x\0\0" + bomb))
    yield "PNG of endless frames", png(64, 64, extra=chunk(b"acTL", struct.pack(">II", 2**31, 0)))
    many = chunk(b"tEXt", b"Comment\0" + bytes(20)) * 50_000
    yield "PNG of 50,000 comments", png(64, 64, extra=many)
    data = bytearray(_good("GIF"))
    for size in ((65_535, 65_535), (7000, 7000), (0, 0)):
        struct.pack_into("<HH", data, 6, *size)
        yield f"GIF of {size}", bytes(data)
    frames = [Image.new("P", (32, 32), number % 256) for number in range(500)]
    yield "GIF of 500 frames", encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    rgb = [frame.convert("RGB") for frame in frames[:100]]
    yield "WEBP of 100 frames", encode(rgb[0], "WEBP", save_all=True, append_images=rgb[1:])
    for size in (0x3FFF, 7000):
        vp8x = struct.pack("<4sI", b"VP8X", 10) + bytes(4) + (size - 1).to_bytes(3, "little") * 2
        body = b"WEBP" + vp8x + _good("WEBP")[12:]
        yield f"WEBP of {size} squared", b"RIFF" + struct.pack("<I", len(body)) + body
    for kind in ("HEIF", "AVIF"):
        good = _good(kind)
        place = good.find(b"ispe") + 8
        for width, height in ((2**31, 2**31), (65_535, 65_535), (7000, 7000), (0, 0)):
            sizes = struct.pack(">II", width, height)
            yield f"{kind} of {width} x {height}", good[:place] + sizes + good[place + 8 :]
    data = bytearray(_good("BMP"))
    for sizes in ((2**31 - 1, 2**31 - 1), (7000, 7000), (-64, -64), (64, -(2**31))):
        struct.pack_into("<ii", data, 18, *sizes)
        yield f"BMP of {sizes}", bytes(data)
    yield "HEIC of 44 megapixels", grid_file("HEIF", 13, 512, shown=512)
    yield "HEIC of 26 megapixels, fine", grid_file("HEIF", 10, 512, shown=512, chroma=444)
    clear = Image.new("RGBA", (4600, 4600))
    quick = {"chroma": 444, "enc_params": {"preset": "ultrafast"}}
    yield "HEIC of 21 megapixels, fine, transparent", encode(clear, "HEIF", **quick)
    plain = Image.new("RGB", (7000, 7000), "red")
    yield "JPEG of 49 megapixels", encode(plain, "JPEG")
    yield "JPEG of 49 megapixels, progressive", encode(plain, "JPEG", progressive=True)
    fine = {"progressive": True, "subsampling": 0}
    yield "JPEG of 49 megapixels, progressive and fine", encode(plain, "JPEG", **fine)
    cmyk = Image.new("CMYK", (5400, 5400))
    yield "JPEG of 29 megapixels, progressive, CMYK", encode(cmyk, "JPEG", progressive=True)
    yield "WEBP of 14 megapixels", encode(plain.crop((0, 0, 3700, 3700)), "WEBP", method=0)
    yield "WEBP of 65,536 sets of tables", webp_of_tables(1200)
    yield "WEBP of 49 megapixels", encode(plain, "WEBP", method=0, quality=1)
    jpeg = bytearray(_good("JPEG"))
    place = jpeg.find(b"\xff\xc0") + 5
    for sizes in ((65_535, 65_535), (7000, 7000), (0, 0)):
        struct.pack_into(">HH", jpeg, place, *sizes)
        yield f"JPEG of {sizes}", bytes(jpeg)


def _tiffs() -> Iterator[File]:
    """The format with the most freedom."""
    plain = Image.new("RGB", (7000, 7000))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", None):
        data = encode(plain, "TIFF", compression=compression)
        yield f"TIFF of 49 megapixels, {compression}", data[:MOST]
    good = _good("TIFF")
    start = struct.unpack_from("<I", good, 4)[0]
    count = struct.unpack_from("<H", good, start)[0]
    end = start + 2 + 12 * count
    yield "TIFF whose pages go in a circle", good[:end] + struct.pack("<I", start) + good[end + 4 :]
    for number in range(count):
        place = start + 2 + 12 * number
        tag = struct.unpack_from("<H", good, place)[0]
        for kind, amount, value in ((4, 2**31, 0), (12, 1, 2**31), (2, 2**28, 8), (3, 0, 65_535)):
            entry = struct.pack("<HHII", tag, kind, amount, value)
            name = f"TIFF with tag {tag} of type {kind}, {amount} times"
            yield name, good[:place] + entry + good[place + 12 :]
    pages = [Image.new("L", (16, 16)) for _ in range(200)]
    yield "TIFF of 200 pages", encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])


def _tags() -> Iterator[File]:
    """What is said about the picture makes no sense."""
    chance = random.Random("tags")
    picture = gradient()
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
        for name, profile in (
            ("nothing", b"\0"),
            ("noise", chance.randbytes(3000)),
            ("a head of 4 GB", b"\xff\xff\xff\xff" + bytes(200)),
            ("a megabyte", bytes(2**20)),
        ):
            yield f"{kind} with a profile of {name}", encode(picture, kind, icc_profile=profile)
    head = b"Exif\0\0MM\0*\0\0\0\x08"
    exifs = {f"noise, {size} bytes": chance.randbytes(size) for size in range(4, 2000, 300)}
    exifs["a circle"] = b"\0\1\x87\x69\0\4\0\0\0\1\0\0\0\x08\0\0\0\x08"
    for turn in (0, 9, 65_535):
        exifs[f"turn {turn}"] = b"\0\1" + struct.pack(">HHIHH", 0x0112, 3, 1, turn, 0) + bytes(4)
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", "HEIF"):
        for name, exif in exifs.items():
            try:
                yield f"{kind} with EXIF of {name}", encode(picture, kind, exif=head + exif)
            except (OSError, ValueError, SyntaxError, struct.error):
                continue  # this encoder looks into it


class _Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('a picture ran')",)


def _no_pictures() -> Iterator[File]:
    """Everything else, and pictures that are something else besides."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("photo.jpg", bytes(2**20))
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    others = {
        "nothing": b"",
        "one byte": b"\xff",
        "25 MB of nothing": bytes(MOST),
        "25 MB and a byte": bytes(MOST + 1),
        "25 MB that begin as a JPEG": _good("JPEG")[:200] + bytes(MOST - 200),
        "25 MB of 0xff that begin as a JPEG": _good("JPEG")[:200] + b"\xff" * (MOST - 200),
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "SVG that laughs": f'<!DOCTYPE svg [<!ENTITY l0 "ha">{laughs}]><svg>&l9;</svg>'.encode(),
        "SVG that reads": b'<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
        "PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>",
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
        "HTML": b"<!DOCTYPE html><script>alert(1)</script>",
        "zip": archive.getvalue(),
        "pickle": pickle.dumps(_Runs()),
        "program": b"\x7fELF" + bytes(1000),
        "script": b"#!/bin/sh\ntouch canary\n",
        "MVG": b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/x'\n",
    }
    for magic in (
        b"\0\0\1\0",
        b"8BPS",
        b"SIMPLE  =",
        b"FORM",
        b"P6\n9 9\n255\n",
        b"\x89HDF",
        b"qoif",
    ):
        others[f"another format, {magic!r}"] = magic + bytes(500)
    yield from others.items()
    for kind in KINDS:
        good = _good(kind)
        for name in ("zip", "HTML", "pickle", "PDF", "script"):
            yield f"{kind} and {name}", good + others[name]
            yield f"{name} and {kind}", others[name] + good
