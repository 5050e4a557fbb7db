"""How many pages a file may have: counting them alone can take a library minutes."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from serpent_ir.errors import ImageReadError
from serpent_ir.images.tiff import begins_like_tiff, places_of_directories

MAX_PAGES = 10_000


def check_pages(file: BinaryIO, name: Path | str) -> None:
    """Raise ImageReadError when a TIFF or WebP file has more than `MAX_PAGES` pages, or a TIFF file no end of them.

    Other damage is left to the decoder, which has better words for it. The place in the file is not kept.
    """
    file.seek(0)
    beginning = file.read(12)
    try:
        if begins_like_tiff(beginning):
            pages = sum(1 for _ in islice(places_of_directories(file), MAX_PAGES + 1))
        elif beginning[8:] == b"WEBP":
            pages = chunks_of_webp(file)
        else:
            return
    except ValueError:
        return
    if pages > MAX_PAGES:
        raise ImageReadError(f"{name} has more than {MAX_PAGES:,} pages, or pages in a circle", "a photograph")


def chunks_of_webp(file: BinaryIO) -> int:
    """The number of chunks of a RIFF file, at most one more than `MAX_PAGES`; a frame is a chunk."""
    end = file.seek(0, os.SEEK_END)
    place, chunks = 12, 0
    while place + 8 <= end and chunks <= MAX_PAGES:
        file.seek(place + 4)
        size = int.from_bytes(file.read(4), "little")
        place += 8 + size + size % 2
        chunks += 1
    return chunks
