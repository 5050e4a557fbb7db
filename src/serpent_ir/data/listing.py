"""The photographs of a source, listed and not decoded: folders, FFHQ, pairs, and shards (see shards.py)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from serpent_ir.data.photographs import Entry, File
from serpent_ir.data.shards import list_shards
from serpent_ir.data.source import PhotographSource
from serpent_ir.errors import DataError
from serpent_ir.files import printable
from serpent_ir.images import find_images, list_folder
from serpent_ir.urls import shown

log = logging.getLogger(__name__)

FFHQ_NAME = re.compile(r"\d{5}\.png")
FFHQ_SPLITS = {"all": range(70_000), "train": range(60_000), "val": range(60_000, 70_000)}
"""The first 60 000 images are trained on, the last 10 000 validate."""


@dataclass(frozen=True)
class Listing:
    """entries: the photographs, sorted by name. problems: what could not be used, a sentence each. others: the names of
    files that are no images by their suffix."""

    entries: list[Entry]
    problems: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def list_photographs(source: PhotographSource) -> Listing:
    """Find the photographs of `source`. Raises DataError when it does not exist or holds none."""
    if source.is_shards:
        listing = Listing(*list_shards(source.expanded()))
    else:
        layouts: dict[str, Callable[[Path, PhotographSource], Listing]] = {"ffhq": list_ffhq, "paired": list_pairs}
        listing = layouts.get(source.layout, list_images)(source.folder(), source)
    if not listing.entries:
        kind = {"ffhq": "FFHQ's 00000.png to 69999.png", "paired": "pairs of equal names below clean/ and degraded/"}
        problems = "; ".join(listing.problems[:3])
        raise DataError(
            f"{shown(source.path)!r} holds no image that can be used{f' ({printable(problems)})' if problems else ''}",
            kind.get(source.layout, "photographs (see serpent_ir.images)"),
        )
    entries = [replace(entry, shrink=source.shrink, side=source.size) for entry in listing.entries]
    return Listing(entries, listing.problems, listing.others)


def list_images(folder: Path, source: PhotographSource) -> Listing:
    """All images below a folder."""
    content = list_folder(folder)
    entries = [Entry(path.relative_to(folder).as_posix(), File(path)) for path in content.images]
    return Listing(entries, others=[path.relative_to(folder).as_posix() for path in content.others])


def list_ffhq(folder: Path, source: PhotographSource) -> Listing:
    """The images of FFHQ's split below a folder, by number; those that are missing are counted.

    Raises DataError when a number is there twice, as in the folder that holds images1024x1024 and the thumbnails.
    """
    numbers = FFHQ_SPLITS[source.split]
    found: dict[int, Path] = {}
    for path in find_images(folder):
        if not FFHQ_NAME.fullmatch(path.name):
            continue
        number = int(path.stem)
        if number in found:
            places = " and ".join(str(place.relative_to(folder).parent) for place in (found[number], path))
            came = f"{source.path!r} holds {path.name} twice, in {places}"
            raise DataError(came, "each number once", "Name the folder of one size, such as images1024x1024.")
        found[number] = path
    chosen = sorted(found.keys() & set(numbers))
    missing = len(numbers) - len(chosen)
    if chosen and missing:
        first = next(number for number in numbers if number not in found)
        log.warning(
            "FFHQ in %s: %d of %d numbers are missing, the first is %05d", source.path, missing, len(numbers), first
        )
    return Listing([Entry(found[number].relative_to(folder).as_posix(), File(found[number])) for number in chosen])


def list_pairs(folder: Path, source: PhotographSource) -> Listing:
    """Images below clean/ with a partner of the same name below degraded/; the suffixes may differ.

    Those without a partner are problems. Raises DataError when one of the two folders does not exist.
    """
    sides = []
    problems = []
    for side in ("clean", "degraded"):
        root = folder / side
        if not root.is_dir():
            raise DataError(f"data folder {str(root)!r} does not exist", "the folders clean and degraded")
        images: dict[str, Path] = {}
        for path in find_images(root):
            name = path.relative_to(root).with_suffix("").as_posix()
            if name in images:
                problems.append(f"{side}/{path.relative_to(root).as_posix()} has the name of another image there")
            images.setdefault(name, path)
        sides.append(images)
    clean, degraded = sides
    problems += [f"clean/{name} has no partner in degraded/" for name in sorted(clean.keys() - degraded.keys())]
    problems += [f"degraded/{name} has no partner in clean/" for name in sorted(degraded.keys() - clean.keys())]
    both = sorted(clean.keys() & degraded.keys())
    return Listing([Entry(name, File(clean[name]), File(degraded[name])) for name in both], problems)
