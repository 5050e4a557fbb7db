"""WebDataset shards: .tar archives of images, read at any place through an index of where each image begins.

The names inside an archive are labels and nothing else: no file is ever written under one of them.
"""

from __future__ import annotations

import json
import logging
import re
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from serpent_ir.data.photographs import Content, Entry
from serpent_ir.data.remote import fetch, is_remote
from serpent_ir.errors import DataError, ImageReadError
from serpent_ir.files import printable
from serpent_ir.images import IMAGE_SUFFIXES

log = logging.getLogger(__name__)

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
FETCHED_AT_ONCE = 4
MOST_SHARDS = 1_000_000


@dataclass
class Shard:
    """An archive, and once it was needed, where it lies on this machine."""

    location: str
    path: Path | None = None

    def local(self) -> Path:
        """Fetch it when that was not done yet. Raises DataError when it cannot be had."""
        if self.path is None:
            self.path = fetch(self.location) if is_remote(self.location) else Path(self.location)
        return self.path


@dataclass(frozen=True)
class Member:
    """An image file inside a shard: `size` bytes from `offset` on."""

    shard: Shard
    offset: int
    size: int

    def length(self) -> int:
        return self.size

    def read(self) -> bytes:
        try:
            with self.shard.local().open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            came = f"shard {self.shard.location} cannot be read ({error.strerror})"
            raise ImageReadError(came, "a readable archive") from error
        if len(content) < self.size:
            raise ImageReadError(f"shard {self.shard.location} ends in the middle of an image", "a whole archive")
        return content


def list_shards(path: str) -> tuple[list[Entry], list[str]]:
    """The images of a shard, of all shards directly in a folder, or of those that a brace notation names; and problems.

    A shard that is missing or damaged is a problem, as is a sample without an image. Raises DataError for a notation
    that is none and for a folder without shards.
    """
    entries: list[Entry] = []
    problems: list[str] = []
    for location in locations_of(path):
        shard = Shard(location)
        try:
            listed, skipped = entries_of(shard)
        except DataError as error:
            problems.append(str(error))
            continue
        entries += listed
        problems += [f"{location}: sample {name} has no image" for name in skipped]
    return entries, problems


def locations_of(path: str) -> list[str]:
    """Every shard that `path` names; train-{000..002}.tar is train-000.tar, train-001.tar and train-002.tar."""
    if not is_remote(path) and Path(path).is_dir():
        found = sorted(str(file) for file in Path(path).glob("*.tar") if not file.name.startswith("."))
        if not found:
            raise DataError(f"data folder {path!r} holds no shard", "archives whose names end in .tar")
        return found
    expanded = [path]
    while RANGE.search(expanded[0]):
        expanded = [shard for pattern in expanded for shard in _numbered(pattern)]
        if len(expanded) > MOST_SHARDS:
            raise DataError(f"{path!r} names more than {MOST_SHARDS} shards")
    if any("{" in shard or "}" in shard for shard in expanded):
        raise DataError(f"shards {path!r}", "numbers between braces, such as train-{000000..000059}.tar")
    return expanded


def _numbered(pattern: str) -> Iterable[str]:
    """`pattern` with its first range replaced by each of its numbers, as wide as they are written."""
    match = RANGE.search(pattern)
    assert match is not None
    first, last = match.groups()
    if int(first) > int(last) or int(last) - int(first) >= MOST_SHARDS:
        raise DataError(f"shards {pattern!r}", f"at most {MOST_SHARDS} numbers in rising order")
    for number in range(int(first), int(last) + 1):
        yield f"{pattern[: match.start()]}{number:0{len(first)}d}{pattern[match.end() :]}"


def fetch_shards(contents: Iterable[Content]) -> None:
    """Fetch the shards of all these members that are not on this machine, several at once."""
    shards = {id(content.shard): content.shard for content in contents if isinstance(content, Member)}
    remote = [shard for shard in shards.values() if shard.path is None and is_remote(shard.location)]
    if not remote:
        return
    log.info("fetching %d shards", len(remote))
    with ThreadPoolExecutor(FETCHED_AT_ONCE) as threads:
        for number, _ in enumerate(threads.map(Shard.local, remote), start=1):
            log.info("shard %d of %d is here", number, len(remote))


def index_location(location: str) -> str:
    """Where a shard's index lies: beside it, as <shard>.json. A query behind the path of a URL stays at the end."""
    path, question, query = location.partition("?")
    return f"{path}.json{question}{query}"


def entries_of(shard: Shard) -> tuple[list[Entry], list[str]]:
    """The images of a shard in their order, and the names of samples without one.

    From the index beside it; without one that can be used, from the archive's headers. Raises DataError when those
    cannot be read either.
    """
    index = index_of(shard)
    if index is not None:
        try:
            return entries_from_index(shard, index), []
        except DataError as error:
            log.warning("%s The archive's headers are read instead.", printable(str(error)))
    return entries_from_headers(shard)


def index_of(shard: Shard) -> bytes | None:
    """The content of the file beside a shard that says where its images are; None when there is none."""
    location = index_location(shard.location)
    if not is_remote(location):
        path = Path(location)
        return path.read_bytes() if path.is_file() else None
    try:
        return fetch(location).read_bytes()
    except DataError:
        log.info("%s has no index beside it: its headers are read", shard.location.split("?")[0])
        return None


def entries_from_index(shard: Shard, text: bytes) -> list[Entry]:
    """What the index says, checked: every image lies within the archive.

    Raises DataError when it is no index, or that of another archive.
    """
    try:
        index = json.loads(text)
        total = int(index["bytes"])
        entries = []
        for sample in index["samples"]:
            member = Member(shard, int(sample["offset"]), int(sample["size"]))
            if not 0 <= member.offset < member.offset + member.size <= total:
                raise DataError(f"index of {shard.location} names a place outside of the archive")
            size = int(sample["height"]), int(sample["width"])
            entries.append(Entry(str(sample["name"]), member, size=size, hash=str(sample["hash"])))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"index of {shard.location} cannot be used ({error!r})") from error
    if not is_remote(shard.location) and shard.local().stat().st_size != total:
        raise DataError(f"index of {shard.location} is that of an archive of {total} bytes")
    return entries


def entries_from_headers(shard: Shard) -> tuple[list[Entry], list[str]]:
    """The images of an archive, found by reading its headers. Raises DataError when it is damaged or none."""
    path = shard.local()
    images: dict[str, Entry] = {}
    samples: dict[str, None] = {}
    try:
        total = path.stat().st_size
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if not info.isreg() or info.issparse():
                    continue
                key, suffix = split_name(info.name)
                samples[key] = None
                if info.offset_data + info.size > total:
                    raise DataError(f"shard {shard.location} ends in the middle of an image", "a whole archive")
                if suffix in IMAGE_SUFFIXES and info.size > 0:
                    images.setdefault(key, Entry(info.name, Member(shard, info.offset_data, info.size)))
    except OSError as error:
        raise DataError(f"shard {shard.location} cannot be read ({error.strerror})", "a readable archive") from error
    except tarfile.TarError as error:
        came = f"shard {shard.location} is damaged or no archive ({error})"
        raise DataError(came, "a .tar file that is not compressed") from error
    return list(images.values()), [key for key in samples if key not in images]


def split_name(name: str) -> tuple[str, str]:
    """("folder/a", ".seg.png") of "folder/a.seg.png": files with an equal first part are one sample."""
    folder, slash, last = name.rpartition("/")
    stem, dot, suffix = last.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{suffix.lower()}"
