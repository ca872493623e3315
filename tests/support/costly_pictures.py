"""Small files that would cost a decoder minutes or gigabytes, one for each way to do it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

import icon_classifier.images  # noqa: F401 - lets Pillow write HEIF
from tests.support.pictures import encode

File = tuple[str, bytes]


def costly_files() -> Iterator[File]:
    """What each is, and its bytes; all are to be refused before they are decoded."""
    yield from _jpegs()
    yield from _pngs()
    yield from _gifs()
    yield from _bmps()
    yield from _tiffs()
    for kind in ("AVIF", "HEIF"):
        yield from _items(kind)


def _jpegs() -> Iterator[File]:
    good = encode(Image.new("RGB", (64, 64)), "JPEG", subsampling=0)
    progressive = encode(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    head, rest = good[:20], good[20:]  # behind JFIF
    scan = b"\xff\xda\0\x08\x01\x01\0\x01\x3f\0"
    yield "JPEG of 1,000 scans", progressive[:-2] + scan * 1000 + progressive[-2:]
    large = _resized(progressive, 7000)
    yield "JPEG of 49 megapixels and 41 scans", large[:-2] + scan * 31 + large[-2:]
    yield "JPEG of 3,000 empty segments", head + segment(0xEF, b"") * 3000 + rest
    yield "JPEG of segments behind an end", head + b"\xff\xd9" + segment(0xEF, b"") * 3000 + rest
    yield "JPEG of segments in a segment", head + _hidden(segment(0xEF, b"") * 3000) + rest
    yield "JPEG of 200 kB of nothing", head + bytes(200_000) + rest
    yield "JPEG of 200 kB of fill", head + b"\xff" * 200_000 + rest
    yield "JPEG of 200 kB of fill in a scan", good[:-2] + b"\xff" * 200_000
    yield "JPEG of 3,000 tables", head + segment(0xDB, bytes(65)) * 3000 + rest
    components = segment(0xC0, bytes([8, 0, 64, 0, 64, 3]) + b"\1\x11\0" * 21_000)
    yield "JPEG of 63,000 components", head + components * 3 + rest
    yield "JPEG of EXIF in 100 pieces", head + segment(0xE1, b"Exif\0\0" + bytes(99)) * 100 + rest
    resources = segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5000)
    yield "JPEG of 25,000 resources", head + resources * 5 + rest
    start = good.index(b"\xff\xda")
    one = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"
    yield "JPEG of 49 megapixels in parts", _resized(good[:start], 7000) + one + bytes(100)
    yield "JPEG of arithmetic coding", good.replace(b"\xff\xc0", b"\xff\xc9")
    yield "JPEG of progressive arithmetic coding", progressive.replace(b"\xff\xc2", b"\xff\xca")


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _hidden(body: bytes) -> bytes:
    """What a reader skips that expects a length after a marker which has none."""
    return struct.pack(">BBH", 0xFF, 0xF0, len(body) + 2) + body


def _resized(jpeg: bytes, side: int) -> bytes:
    data = bytearray(jpeg)
    place = next(at for marker in (b"\xff\xc0", b"\xff\xc2") if (at := data.find(marker)) > 0)
    struct.pack_into(">HH", data, place + 5, side, side)
    return bytes(data)


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    crc = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)


def tiny_blocks(size: int) -> bytes:
    """Deflated data of so many bytes: blocks of 95 bits, each with codes of its own for one 0."""
    lengths = [0, 0, 1, 2, *[0] * 13, 2]  # of the codes for 138 times 0 (18), for 0 and for 1
    numbers = [(0, 1), (2, 2), (0, 5), (0, 5), (len(lengths) - 4, 4), *((n, 3) for n in lengths)]
    numbers += [(3, 2), (0, 1), (127, 7), (0, 1), (106, 7), (3, 2), (1, 2), (0, 1), (1, 1)]
    blocks = _packed(_bits(numbers) * 8)
    return b"\x78\x01" + blocks * (size // len(blocks))


def _bits(numbers: Sequence[tuple[int, int]]) -> str:
    """Numbers, each in so many bits, the lowest one first."""
    return "".join(f"{number:0{count}b}"[::-1] for number, count in numbers)


def _packed(bits: str) -> bytes:
    return int(bits[::-1], 2).to_bytes((len(bits) + 7) // 8, "little")


def webp_of_tables(side: int) -> bytes:
    """A lossless WebP whose blocks of 4 x 4 pixels use 65,536 sets of code tables in turn."""
    blocks = (side + 3) // 4
    head = [(0x2F, 8), (side - 1, 14), (side - 1, 14), (0, 1), (0, 3), (0, 1), (0, 1), (1, 1)]
    sizes = [(0, 3), (0, 1)]  # of a block; no cache
    eight = [(0, 1), (8, 4), *((int(at in (2, 11)), 3) for at in range(12)), (0, 1)]
    for symbols in (280, 256):  # green and red: 0 to 255 in eight bits each
        sizes += [*eight, *((int(symbol < 256), 1) for symbol in range(symbols))]
    single = (0b0001, 4)  # one code, for 0, in no bits
    codes = [f"{number:08b}" for number in range(256)]
    image = "".join(codes[at & 255] + codes[at >> 8 & 255] for at in range(blocks**2))
    data = _packed(_bits([*head, *sizes, *[single] * 3]) + image + _bits([single]) * 5 * 2**16)
    data += bytes(len(data) % 2)
    start = b"WEBPVP8L" + struct.pack("<I", len(data))
    return b"RIFF" + struct.pack("<I", len(start + data)) + start + data


def _pngs() -> Iterator[File]:
    good = encode(Image.new("RGB", (64, 64)))
    head, rest = good[:33], good[33:]
    yield "PNG of 150,000 chunks", head + chunk(b"teSt", b"") * 150_000 + rest
    yield "PNG of 150,000 empty pieces", good[:-12] + chunk(b"IDAT", b"") * 150_000 + good[-12:]
    size = struct.pack(">IIBB", 7000, 7000, 16, 2)
    idat = chunk(b"IDAT", tiny_blocks(5_000_000))
    yield "PNG of 400,000 blocks of deflated data", head + idat + rest[-12:]
    yield "PNG of 49 megapixels of 48 bits", good[:16] + size + good[26:]
    numbers = struct.pack(">HHII", 0x0112, 5, 400_000, 8) + bytes(3_200_000)
    exif = b"MM\0*\0\0\0\x08\0\1" + numbers
    yield "PNG whose orientation is 400,000 numbers", head + chunk(b"eXIf", exif) + rest
    directory = b"MM\0*\0\0\0\x08" + struct.pack(">H", 500) + struct.pack(">HHII", 1, 3, 1, 0) * 500
    yield (
        "PNG whose EXIF has 300 headers of a directory of 500 entries",
        head + chunk(b"eXIf", directory * 300) + rest,
    )
    yield "PNG whose EXIF has 20,000 headers", head + chunk(b"eXIf", b"MM\0*" * 20_000) + rest
    webp = encode(Image.new("RGB", (64, 64)), "WEBP", exif=b"Exif\0\0" + exif)
    yield "WEBP whose orientation is 400,000 numbers", webp
    yield "WEBP of 150,000 chunks", webp[:30] + b"XXXX\0\0\0\0" * 150_000


def _gifs() -> Iterator[File]:
    good = encode(Image.new("L", (64, 64)), "GIF")
    start = 13 + 3 * 2 ** ((good[10] & 7) + 1)
    yield "GIF of 300,000 blocks", good[:start] + b"!\xfe" + b"\1a" * 300_000 + b"\0" + good[start:]
    yield "GIF of 300,000 extensions", good[:start] + b"!\1\0" * 300_000 + good[start:]
    yield "GIF of 300 kB of nothing", good[:start] + b"\1" * 300_000 + good[start:]


def run_length_bmp(width: int, height: int, runs: bytes) -> bytes:
    """A BMP of 256 colours, compressed by RLE8."""
    start = 54 + 1024
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    palette = bytes(each for value in range(256) for each in (value, 0, 255 - value, 0))
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + head + palette + runs


def _bmps() -> Iterator[File]:
    yield "BMP of 49 megapixels in runs", run_length_bmp(65_000, 760, b"\1\5\0\0" * 760)
    yield "BMP of 200,000 runs without a pixel", run_length_bmp(64, 64, b"\0\2\0\0" * 200_000)


Tag = tuple[int, int, Sequence[int]]


def tiff(tags: Sequence[Tag], rest: bytes = b"") -> bytes:
    """A TIFF of 64 x 64 grey pixels, or what the tags (number, type, values) say instead."""
    plain: list[Tag] = [
        *((256, 3, [64]), (257, 3, [64]), (258, 3, [8]), (259, 3, [1]), (262, 3, [1])),
        *((273, 4, [8]), (277, 3, [1]), (278, 3, [64]), (279, 4, [4096])),
    ]
    merged = {tag: (kind, values) for tag, kind, values in [*plain, *tags]}
    place = 8 + 4096
    body, entries = b"", b""
    for tag, (kind, values) in sorted(merged.items()):
        letter = {3: "H", 4: "I", 5: "Q", 8: "h"}[kind]
        packed = struct.pack(f"<{len(values)}{letter}", *values)
        entry = struct.pack("<HHI", tag, kind, len(values))
        if len(packed) > 4:
            entry += struct.pack("<I", place + len(rest) + len(body))
            body += packed
        entries += entry if len(packed) > 4 else entry + packed.ljust(4, b"\0")
    directory = place + len(rest) + len(body)
    head = b"II*\0" + struct.pack("<I", directory) + bytes(4096) + rest + body
    return head + struct.pack("<H", len(merged)) + entries + bytes(4)


def _tiffs() -> Iterator[File]:
    tile: list[Tag] = [(322, 3, [1]), (323, 3, [1])]
    yield "TIFF of 160,000 tiles", tiff([*tile, (324, 4, [8] * 160_000)])
    yield "TIFF of 160,000 strips", tiff([(278, 3, [1]), (273, 4, [8] * 160_000)])
    yield "TIFF of 400,000 numbers", tiff([(282, 5, [1] * 400_000)])
    yield (
        "TIFF whose EXIF is 400,000 numbers",
        tiff(
            [(34_665, 4, [8 + 4096])],
            struct.pack("<HHHII", 1, 5, 5, 400_000, 8) + bytes(3_200_000),
        ),
    )
    many = b"II*\0\x08\0\0\0" + struct.pack("<H", 65_000)
    yield "TIFF of 65,000 entries", many + struct.pack("<HHII", 256, 3, 1, 64) * 65_000
    many = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 65_000)
    yield "BigTIFF of 65,000 entries", many + struct.pack("<HHQQ", 256, 3, 1, 64) * 65_000
    shared: list[Tag] = [(278, 3, [1]), (257, 4, [20_000]), (273, 4, [8] * 20_000), (259, 3, [8])]
    yield (
        "TIFF of 20,000 strips with the same bytes",
        tiff([*shared, (279, 4, [100_000] * 20_000)], bytes(100_000)),
    )
    yield (
        "TIFF of two strips with the same bytes",
        tiff([(257, 4, [128]), (273, 4, [8] * 2), (259, 3, [8]), (279, 4, [3000] * 2)]),
    )
    large: list[Tag] = [(256, 4, [7000]), (257, 4, [7000]), (262, 3, [2])]
    yield "TIFF of 49 megapixels of 48 bits", tiff([*large, (258, 3, [16] * 3), (259, 3, [8])])
    yield "TIFF of 49 megapixels, LZMA", tiff([*large, (258, 3, [8] * 3), (259, 3, [34_925])])
    for name, compression in (("deflated", 8), ("Zstandard", 50_000)):
        place: list[Tag] = [(259, 3, [compression]), (273, 4, [8 + 4096]), (279, 4, [4_990_000])]
        yield f"TIFF of 5 MB of {name} data", tiff(place, tiny_blocks(5_000_000))
    yield (
        "TIFF of two strips with the same bytes, whose compression is a signed number",
        tiff([(257, 4, [128]), (273, 4, [8] * 2), (259, 8, [8]), (279, 4, [3000] * 2)]),
    )
    good = encode(Image.new("L", (64, 64)), "JPEG")
    progressive = encode(Image.new("L", (64, 64)), "JPEG", progressive=True)
    jpegs = {
        "a JPEG of 1,000 scans": good[:-2] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" * 1000 + good[-2:],
        "a progressive JPEG": progressive,
        "a JPEG of arithmetic coding": good.replace(b"\xff\xc0", b"\xff\xc9"),
        "a JPEG with 100 comments": good[:2] + segment(0xFE, b"") * 100 + good[2:],
    }
    for name, jpeg in jpegs.items():
        for length in (len(jpeg), 0):  # of the only strip libtiff does not believe that it is empty
            place = [(259, 3, [7]), (273, 4, [8 + 4096]), (279, 4, [length])]
            yield f"TIFF of {name}, {length} bytes", tiff(place, jpeg)


def box(name: bytes, body: bytes, version: int | None = None) -> bytes:
    """A box of an AVIF or HEIC."""
    if version is not None:
        body = bytes([version, 0, 0, 0]) + body
    return struct.pack(">I", len(body) + 8) + name + body


def coded(kind: str, side: int, **options: Any) -> tuple[bytes, list[bytes]]:
    """The coded data of a picture of one colour, and the properties that a decoder needs."""
    file = encode(Image.new("RGB", (side, side), "red"), kind, **options)
    start = file.index(b"ipco") - 4
    end, at, properties = start + struct.unpack_from(">I", file, start)[0], start + 8, []
    while at < end:
        size = struct.unpack_from(">I", file, at)[0]
        if file[at + 4 : at + 8] in (b"av1C", b"hvcC", b"pixi"):
            properties.append(file[at : at + size])
        at += size
    return file[file.index(b"mdat") + 4 :], properties


def items(
    kind: str,
    parts: Sequence[tuple[bytes, Sequence[tuple[int, int]], Sequence[int]]],
    properties: Sequence[bytes],
    references: bytes,
    data: bytes,
    *,
    locations: bytes = b"",
) -> bytes:
    """An AVIF or HEIC.

    `parts` are its items: type, extents in `data` and indices of `properties` from 1. The first one
    is the picture. `locations` replaces the table of extents.
    """
    brand = b"avif" if kind == "AVIF" else b"heic"
    numbered = list(enumerate(parts, 1))
    names = [box(b"infe", struct.pack(">HH", n, 0) + each[0] + b"\0", 2) for n, each in numbered]
    uses = [struct.pack(">HB", n, len(each[2])) + bytes(each[2]) for n, each in numbered]
    fixed = (
        box(b"hdlr", bytes(4) + b"pict" + bytes(13), 0)
        + box(b"pitm", struct.pack(">H", 1), 0)
        + box(b"iinf", struct.pack(">H", len(parts)) + b"".join(names), 0)
        + box(
            b"iprp",
            box(b"ipco", b"".join(properties))
            + box(b"ipma", struct.pack(">I", len(parts)) + b"".join(uses), 0),
        )
        + box(b"iref", references, 0)
    )
    head = box(b"ftyp", brand + bytes(4) + b"mif1miaf" + brand)

    def meta(start: int) -> bytes:
        table = struct.pack(">BBH", 0x44, 0, len(parts))
        for number, (_, extents, _) in numbered:
            table += struct.pack(">HHH", number, 0, len(extents))
            for offset, length in extents:
                table += struct.pack(">II", start + offset, length)
        return box(b"meta", fixed + box(b"iloc", locations or table, 0), 0)

    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", data)


def refers(name: bytes, source: int, targets: Sequence[int]) -> bytes:
    """A reference of one item to others."""
    return box(name, struct.pack(f">HH{len(targets)}H", source, len(targets), *targets))


def grid_file(
    kind: str,
    rows: int,
    side: int,
    *,
    claimed: int = 0,
    shown: int = 64,
    padding: int = 0,
    **options: Any,
) -> bytes:
    """A grid of rows x rows tiles, each of `side` x `side` pixels, that all have the same bytes.

    `claimed` is their side by their property, `shown` by the grid; `padding` are bytes in each.
    """
    data, needed = coded(kind, side, **options)
    data += bytes(padding)
    tile, whole = (struct.pack(">II", each, each) for each in (claimed or side, shown * rows))
    properties = [box(b"ispe", tile, 0), *needed, box(b"ispe", whole, 0)]
    name = b"av01" if kind == "AVIF" else b"hvc1"
    uses = [1, *(0x80 | number for number in range(2, len(needed) + 2))]
    layout = struct.pack(">BBBBHH", 0, 0, rows - 1, rows - 1, shown * rows, shown * rows)
    parts = [
        (b"grid", [(len(data), len(layout))], [len(properties)]),
        *[(name, [(0, len(data))], uses)] * rows**2,
    ]
    targets = range(2, rows**2 + 2)
    return items(kind, parts, properties, refers(b"dimg", 1, targets), data + layout)


def _items(kind: str) -> Iterator[File]:
    data, needed = coded(kind, 64)
    properties = [box(b"ispe", struct.pack(">II", 64, 64), 0), *needed]
    name = b"av01" if kind == "AVIF" else b"hvc1"
    part = name, [(0, len(data))], [*range(1, len(properties) + 1)]
    yield f"{kind} of 900 tiles of 260,000 pixels", grid_file(kind, 30, 512)
    yield f"{kind} of 225 tiles with the same 100 kB", grid_file(kind, 15, 64, padding=100_000)
    long_part = name, [(0, len(data) + 15_000_000)], [*range(1, len(properties) + 1)]
    yield f"{kind} of 15 MB", items(kind, [long_part], properties, b"", data + bytes(15_000_000))
    exif = bytes(4) + b"MM\0*\0\0\0\x08\0\0" + bytes(2**20)
    described = [*[part] * 80, (b"Exif", [(len(data), len(exif))], [])]
    references = refers(b"cdsc", 81, range(1, 81))
    yield (
        f"{kind} of 80 pictures with the same EXIF",
        items(kind, described, properties, references, data + exif),
    )
    numbers = bytes(4) + b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHII", 0x0112, 5, 400_000, 8)
    numbers += bytes(3_200_000)
    yield (
        f"{kind} whose orientation is 400,000 numbers",
        items(
            kind,
            [part, (b"Exif", [(len(data), len(numbers))], [])],
            properties,
            refers(b"cdsc", 2, [1]),
            data + numbers,
        ),
    )
    plain = items(kind, [part], properties, b"", data)
    longer = struct.pack(">I4sHH", 12, b"dimg", 2, 65_535) * 15_000
    yield (
        f"{kind} of 15,000 references longer than their boxes",
        items(kind, [part], properties, longer, data),
    )
    yield f"{kind} of two tables of extents", plain + box(b"iloc", bytes(4), 0)
    nothing = struct.pack(">BBH", 0, 0, 1) + struct.pack(">HHH", 1, 0, 65_535)
    yield (
        f"{kind} of 65,535 extents of nothing",
        items(kind, [part], properties, b"", data, locations=nothing),
    )
    yield (
        f"{kind} of 15,000 items",
        items(kind, [part, *[(b"xxxx", [], [])] * 15_000], properties, b"", data),
    )
    many = [*properties, *[box(b"free", b"")] * 30_000]
    yield f"{kind} of 30,000 properties", items(kind, [part], many, b"", data)
    large = [box(b"ispe", struct.pack(">II", 4000, 4000), 0), *needed]
    for turn in (box(b"irot", b"\1"), box(b"imir", b"\1"), box(b"clap", bytes(32))):
        turned = name, part[1], [*part[2], *[len(large) + 1] * 20]
        turns = turn[4:8].decode()
        yield f"{kind} of 20 times {turns}", items(kind, [turned], [*large, turn], b"", data)
    if kind == "AVIF":
        yield "AVIF of 900 tiles larger than they say", grid_file(kind, 30, 512, claimed=64)
        # The short header of a still picture's sequence, with 16 bits for each side.
        bits = f"000{1}{1}00000{15:b}{15:b}" + 2 * f"{7999:016b}" + "000000"
        header = b"\x0a\7" + int(bits, 2).to_bytes(7)
        for what, units in (
            ("64 megapixels in a frame", header),
            ("30,000 units", b"\x12\0" * 30_000),
        ):
            whole = name, [(0, len(units))], part[2]
            yield f"AVIF of {what}", items(kind, [whole], properties, b"", units)
        data, needed = coded(kind, 64, subsampling="4:4:4")
        size = box(b"ispe", struct.pack(">II", 5900, 5900), 0)
        yield (
            "AVIF of 35 megapixels without subsampling",
            items(kind, [(name, [(0, len(data))], part[2])], [size, *needed], b"", data),
        )
        frame, needed = coded(kind, 512)
        size = box(b"ispe", struct.pack(">II", 512, 512), 0)
        repeated = name, [(0, 1000 * len(frame))], part[2]
        file = items(kind, [repeated], [size, *needed], b"", 1000 * frame)
        yield "AVIF of 1,000 frames in one picture", file
        frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
        long = bytearray(encode(frames[0], kind, save_all=True, append_images=frames[1:]))
        struct.pack_into(">II", long, long.index(b"stsz") + 8, 1, 2_000_000)
        yield "AVIF of 2 million frames", bytes(long)
