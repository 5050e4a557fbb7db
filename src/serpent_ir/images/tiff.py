"""EXIF in TIFF files, which libvips neither reads nor writes; and files of bare samples, written row by row.

A TIFF file is a header and directories of entries; EXIF is a directory of its own that an entry of the first one points
to, and in other formats a small TIFF file without an image (TIFF 6.0, section 2; CIPA DC-008, 4.5 and 4.6).
"""

from __future__ import annotations

import io
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Union

import numpy as np

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each type."""
LAST_CLASSIC_KIND = 13
SWAPPED = {**{kind: size for kind, size in SIZES.items() if size > 1}, 5: 4, 10: 4}
"""Bytes of what is turned round in another byte order; fractions are two numbers."""

EXIF, GPS, INTEROPERABILITY = 34665, 34853, 40965
EXIF_POINTERS: dict[int, Mapping] = {EXIF: {INTEROPERABILITY: {}}, GPS: {}}
"""Tags that hold the place of a directory, and those in it that do."""
DESCRIPTIONS = (270, 271, 272, 305, 306, 315, 33432)
"""Tags of a first directory that say something of the photograph: description, make, model, software, date, artist,
copyright."""
WIDTH, HEIGHT = 40962, 40963
ROWS_OF_STRIP = 16

MAX_EXIF = 65_000
"""Bytes of EXIF that are kept: what fits into a JPEG file."""
PREFIX = b"Exif\0\0"


@dataclass(frozen=True)
class Entry:
    """kind: the type of its values; values: their bytes, in the byte order of the file."""

    kind: int
    values: bytes


Directory = Mapping[int, Union[Entry, "Directory"]]


@dataclass(frozen=True)
class Layout:
    """How numbers are written: `<` or `>`, and as wide as in a classic TIFF file or in a BigTIFF file."""

    order: str
    big: bool = False

    @property
    def count(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "H"))

    @property
    def offset(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "I"))

    @property
    def entry(self) -> struct.Struct:
        """Tag, type, number of values, and the values or their place."""
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))


def begins_like_tiff(beginning: bytes) -> bool:
    return beginning[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def header_of(file: BinaryIO) -> tuple[Layout, int]:
    """The layout, and the place of the first directory. Raises ValueError when it is no TIFF file."""
    beginning = bytes_at(file, 0, 8)
    if not begins_like_tiff(beginning):
        raise ValueError("not a TIFF header")
    order = "<" if beginning[:1] == b"I" else ">"
    layout = Layout(order, big=beginning[:4] in (b"II+\0", b"MM\0+"))
    at = 8 if layout.big else 4
    return layout, layout.offset.unpack(bytes_at(file, at, layout.offset.size))[0]


def places_of_directories(file: BinaryIO) -> Iterator[int]:
    """The place of every page's directory, without end where they run in a circle. Raises ValueError on damage."""
    layout, place = header_of(file)
    while place:
        yield place
        (count,) = layout.count.unpack(bytes_at(file, place, layout.count.size))
        after = place + layout.count.size + count * layout.entry.size
        (place,) = layout.offset.unpack(bytes_at(file, after, layout.offset.size))


def exif_of_tiff(file: BinaryIO) -> bytes | None:
    """What a TIFF file says of its photograph, as the EXIF block of other formats; None when it says nothing.

    Orientation, size and resolution, which the pixels have, are left out, and so is an old thumbnail. Notes of makers
    are kept byte for byte; places inside them lose their meaning. Raises ValueError when an entry leads nowhere, or all
    of it takes more than `MAX_EXIF` bytes.
    """
    layout, place = header_of(file)
    found = read_directory(file, layout, place, EXIF_POINTERS, (*DESCRIPTIONS, *EXIF_POINTERS))
    if not found:
        return None
    order = layout.order
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    exif = PREFIX + header + written_directory(found, 8, order)
    if len(exif) > MAX_EXIF:
        raise ValueError(f"more than {MAX_EXIF} bytes")
    return exif


def add_exif(file: BinaryIO, exif: bytes, width: int, height: int) -> None:
    """Append an EXIF block to a TIFF file of one page; width and height: of its picture.

    What the file says itself goes before what the block says. Raises ValueError, before anything is written, when the
    block is damaged, or the file is a BigTIFF file.
    """
    block = io.BytesIO(exif.removeprefix(PREFIX))
    layout, place = header_of(file)
    source, start = header_of(block)
    if layout.big or source.big:
        raise ValueError("a BigTIFF file")
    told = read_directory(block, source, start, EXIF_POINTERS, (*DESCRIPTIONS, *EXIF_POINTERS))
    told = in_order(told, source.order, layout.order)
    photograph = told.get(EXIF)
    if isinstance(photograph, Mapping):
        sides = {tag: side for tag, side in ((WIDTH, width), (HEIGHT, height)) if tag in photograph}
        entries = {tag: Entry(4, struct.pack(layout.order + "I", side)) for tag, side in sides.items()}
        told = {**told, EXIF: {**photograph, **entries}}
    (count,) = layout.count.unpack(bytes_at(file, place, layout.count.size))
    raw = bytes_at(file, place + 2, count * 12)
    own = {struct.unpack_from(layout.order + "H", raw, at)[0]: raw[at : at + 12] for at in range(0, len(raw), 12)}
    size = file.seek(0, os.SEEK_END)
    end = size + size % 2
    directory = written_directory({tag: entry for tag, entry in told.items() if tag not in own}, end, layout.order, own)
    file.write(b"\0" * (end - size) + directory)
    file.seek(4)
    file.write(struct.pack(layout.order + "I", end))


def read_directory(
    file: BinaryIO,
    layout: Layout,
    place: int,
    pointers: Mapping[int, Mapping] | None = None,
    tags: tuple[int, ...] | None = None,
) -> dict[int, Entry | Directory]:
    """Tag -> entry of the directory at `place`, or of those in `tags` alone.

    pointers: tags that hold the place of a directory, which is read in their stead, and the same for it. Entries of
    unknown types are left out. Raises ValueError when anything lies beyond the end of the file, or is too large.
    """
    (count,) = layout.count.unpack(bytes_at(file, place, layout.count.size))
    if count > 65535:
        raise ValueError(f"a directory of {count} entries")
    table = bytes_at(file, place + layout.count.size, count * layout.entry.size)
    directory: dict[int, Entry | Directory] = {}
    total = 0
    for tag, kind, number, inline in layout.entry.iter_unpack(table):
        wanted = (tags is None or tag in tags) and (kind <= LAST_CLASSIC_KIND or tag in (pointers or ()))
        if not wanted or kind not in SIZES or number == 0:
            continue
        size = SIZES[kind] * number
        total += size
        if total > MAX_EXIF:
            raise ValueError(f"more than {MAX_EXIF} bytes")
        values = inline[:size] if size <= len(inline) else bytes_at(file, layout.offset.unpack(inline)[0], size)
        if pointers is not None and tag in pointers:
            below = int.from_bytes(values[: SIZES[kind]], "little" if layout.order == "<" else "big")
            directory[tag] = read_directory(file, layout, below, pointers[tag])
        else:
            directory[tag] = Entry(kind, values)
    return directory


def written_directory(directory: Directory, place: int, order: str, raw: Mapping[int, bytes] | None = None) -> bytes:
    """A classic directory as it stands at `place`, an even number, with all that it points to behind it.

    raw: entries of 12 bytes that are taken as they are.
    """
    own = dict(raw or {})
    behind = place + 2 + 12 * (len(directory) + len(own)) + 4
    body = b""
    for tag, entry in directory.items():
        at = behind + len(body)
        if isinstance(entry, Entry):
            number = len(entry.values) // SIZES[entry.kind]
            inline = entry.values.ljust(4, b"\0") if len(entry.values) <= 4 else struct.pack(order + "I", at)
            added = b"" if len(entry.values) <= 4 else entry.values
            own[tag] = struct.pack(order + "HHI4s", tag, entry.kind, number, inline)
        else:
            added = written_directory(entry, at, order)
            own[tag] = struct.pack(order + "HHII", tag, 4, 1, at)
        body += added.ljust(len(added) + len(added) % 2, b"\0")
    table = b"".join(own[tag] for tag in sorted(own))
    return struct.pack(order + "H", len(own)) + table + struct.pack(order + "I", 0) + body


def in_order(directory: Directory, order: str, wanted: str) -> dict[int, Entry | Directory]:
    """The directory with its numbers in another byte order."""
    if order == wanted:
        return dict(directory)
    return {
        tag: turned_round(entry) if isinstance(entry, Entry) else in_order(entry, order, wanted)
        for tag, entry in directory.items()
    }


def turned_round(entry: Entry) -> Entry:
    width = SWAPPED.get(entry.kind, 1)
    return Entry(entry.kind, np.frombuffer(entry.values, f"u{width}").byteswap().tobytes())


def bytes_at(file: BinaryIO, place: int, size: int) -> bytes:
    """Exactly `size` bytes. Raises ValueError when the file ends before."""
    if place + size > file.seek(0, os.SEEK_END):
        raise ValueError("an entry beyond the end of the file")
    file.seek(place)
    content = file.read(size)
    if len(content) != size:
        raise ValueError("an entry beyond the end of the file")
    return content


def beginning_of_samples(height: int, width: int, bands: int, gray: bool, dtype: np.dtype) -> bytes:
    """All of an uncompressed BigTIFF file but its samples, which follow row by row, uint8, uint16 or float32.

    bands: channels, with alpha the last one, not multiplied in.
    """
    order = "<" if sys.byteorder == "little" else ">"
    strips, row = -(-height // ROWS_OF_STRIP), width * bands * dtype.itemsize
    alpha = bands > (1 if gray else 3)
    short, whole, long = (struct.Struct(order + letter) for letter in "HIQ")
    kinds = {short.size: (3, short), whole.size: (4, whole), long.size: (16, long)}
    counts = [ROWS_OF_STRIP * row] * (strips - 1) + [(height - (strips - 1) * ROWS_OF_STRIP) * row]
    fields: dict[int, tuple[int, list[int]]] = {  # tag: bytes of a number, and the numbers
        256: (4, [width]),
        257: (4, [height]),
        258: (2, [8 * dtype.itemsize] * bands),
        259: (2, [1]),  # not compressed
        262: (2, [1 if gray else 2]),
        273: (8, [0] * strips),  # where strips begin
        277: (2, [bands]),
        278: (4, [ROWS_OF_STRIP]),
        279: (8, counts),
        284: (2, [1]),  # the numbers of a pixel side by side
        **({338: (2, [2])} if alpha else {}),
        339: (2, [3 if dtype.kind == "f" else 1] * bands),
    }
    behind = 16 + 8 + 20 * len(fields) + 8
    start = behind + sum(size * len(numbers) for size, numbers in fields.values() if size * len(numbers) > 8)
    fields[273] = 8, [start + ROWS_OF_STRIP * row * strip for strip in range(strips)]
    table = body = b""
    for tag, (size, numbers) in fields.items():
        kind, number = kinds[size]
        packed = b"".join(map(number.pack, numbers))
        place = packed.ljust(8, b"\0") if len(packed) <= 8 else long.pack(behind + len(body))
        body += packed if len(packed) > 8 else b""
        table += struct.pack(order + "HHQ", tag, kind, len(numbers)) + place
    mark = b"II" if order == "<" else b"MM"
    return b"".join(
        (mark, struct.pack(order + "HHHQ", 43, 8, 0, 16), long.pack(len(fields)), table, long.pack(0), body)
    )
