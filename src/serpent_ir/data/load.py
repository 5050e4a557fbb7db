"""From the sources that a recipe names to photographs: in memory where they fit, else decoded when they are used."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from serpent_ir.data.listing import list_photographs
from serpent_ir.data.photographs import Entry, Photograph, Photographs
from serpent_ir.data.shards import fetch_shards
from serpent_ir.data.source import PhotographSource
from serpent_ir.errors import DataError, ImageReadError
from serpent_ir.files import printable
from serpent_ir.urls import shown

log = logging.getLogger(__name__)

Cache = Literal["auto", "memory", "none"]

GIBIBYTE = 2**30
DECODED_AT_ONCE = 8 * GIBIBYTE
"""More than this is not decoded before training begins, unless `memory` is asked for: it would take minutes."""
LOOKED_AT = 64


def load_photographs(sources: Sequence[PhotographSource], limit: int | None = None) -> list[Photograph]:
    """Decode the photographs of all sources, in the sources' order, each sorted by name.

    With `limit`, only that many, evenly spaced over all. Files that cannot be read are skipped, and reported with
    their number in one logged warning. Raises DataError when a source holds no image, or none of all can be read.
    """
    found = list_all(sources)
    if limit is not None and limit < len(found):
        found = [found[index * len(found) // limit] for index in range(limit)]
    return [item for item in decode_all(found, sources) if isinstance(item, Photograph)]


def open_photographs(sources: Sequence[PhotographSource], cache: Cache, memory: int | None) -> Photographs:
    """The photographs of all sources, in the sources' order, each sorted by name.

    cache: `memory` decodes them all now; `none` each time when it is used; `auto` now, if an estimate from the headers
    of some says that they take at most `memory` bytes (None: any number) and that it is done soon.
    Raises DataError as `load_photographs`; with `none`, files that cannot be read are found out when they are used.
    """
    found = list_all(sources)
    whole, kept = estimated_bytes(found)
    fits = whole <= DECODED_AT_ONCE and (memory is None or kept <= memory)
    if cache == "memory" or (cache == "auto" and fits):
        return Photographs(decode_all(found, sources))
    log.info("%d photographs, %.1f GB when decoded: each is decoded when it is used", len(found), kept / 1e9)
    fetch_shards(entry.clean for entry in found)
    return Photographs(found)


def list_all(sources: Sequence[PhotographSource]) -> list[Entry]:
    """The entries of all sources; problems are logged as one warning a source."""
    found: list[Entry] = []
    for source in sources:
        listing = list_photographs(source)
        found += listing.entries
        if listing.problems:
            some = printable(" | ".join(listing.problems[:5])) + (" ..." if len(listing.problems) > 5 else "")
            log.warning("%s: %d left out: %s", source.label, len(listing.problems), some)
    if not found:
        raise DataError("no folder of photographs at all")
    return found


def estimated_bytes(entries: Sequence[Entry]) -> tuple[int, int]:
    """Bytes that all photographs take when decoded, before and after scaling, from those of known size or 64 others."""
    known = [entry for entry in entries if entry.size is not None]
    if len(known) < len(entries):
        count = min(LOOKED_AT, len(entries))
        known = [entries[index * len(entries) // count] for index in range(count)]
    sizes = list(_sizes(known))
    if not sizes:
        return 0, 0
    whole, kept = (sum(values) * len(entries) // len(sizes) for values in zip(*sizes, strict=True))
    return whole, kept


def _sizes(entries: Iterable[Entry]) -> Iterable[tuple[int, int]]:
    for entry in entries:
        try:
            yield entry.decoded_bytes()
        except ImageReadError:
            continue  # named when it is to be decoded


def decode_all(entries: Sequence[Entry], sources: Sequence[PhotographSource]) -> list[Photograph | ImageReadError]:
    """Each entry's photograph with its hash, or why there is none, in order; failures are logged as one warning."""

    def decode(entry: Entry) -> Photograph | ImageReadError:
        try:
            return entry.photograph(hashed=True)
        except ImageReadError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        items = list(threads.map(decode, entries))
    failures = [printable(str(item)) for item in items if isinstance(item, ImageReadError)]
    if failures:
        log.warning("%d of %d images skipped: %s", len(failures), len(items), " | ".join(failures))
    if len(failures) == len(items):
        raise DataError(f"no readable image in {', '.join(shown(source.path) for source in sources)}")
    return items
