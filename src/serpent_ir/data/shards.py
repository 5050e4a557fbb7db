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
from serpent_ir.data.remote import fetch
from serpent_ir.errors import DataError, ImageReadError
from serpent_ir.files import printable
from serpent_ir.images import IMAGE_SUFFIXES
from serpent_ir.urls import is_remote, shown

log = logging.getLogger(__name__)

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
FETCHED_AT_ONCE = 4
MOST_SHARDS = 1_000_000


@dataclass
class Shard:
    """An archive, and once it was needed, where it lies on this machine."""

    location: str
    path: Path | None = None

    @property
    def shown(self) -> str:
        """The location as messages say it."""
        return shown(self.location)

    def local(self) -> Path:
        """Fetch it when that was not done yet. Raises DataError when it cannot be had."""
        if self.path is None:
            self.path = fetch(self.location) if is_remote(self.location) else Path(self.location)
        return self.path

    def size(self) -> int:
        """Bytes of the archive. Raises DataError when it cannot be had."""
        try:
            return self.local().stat().st_size
        except OSError as error:
            came = f"shard {self.shown} cannot be read ({error.strerror})"
            raise DataError(came, "a readable archive") from error


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
            came = f"shard {self.shard.shown} cannot be read ({error.strerror})"
            raise ImageReadError(came, "a readable archive") from error
        except DataError as error:
            raise ImageReadError(error.came, error.expected, error.remedy) from error
        if len(content) < self.size:
            raise ImageReadError(f"shard {self.shard.shown} ends in the middle of an image", "a whole archive")
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
        problems += [f"{shard.shown}: sample {name} has no image" for name in skipped]
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
            raise DataError(f"{shown(path)!r} names more than {MOST_SHARDS} shards")
    if any("{" in shard or "}" in shard for shard in expanded):
        raise DataError(f"shards {shown(path)!r}", "numbers between braces, such as train-{000000..000059}.tar")
    return expanded


def _numbered(pattern: str) -> Iterable[str]:
    """`pattern` with its first range replaced by each of its numbers, as wide as they are written."""
    match = RANGE.search(pattern)
    assert match is not None
    first, last = match.groups()
    if int(first) > int(last) or int(last) - int(first) >= MOST_SHARDS:
        raise DataError(f"shards {shown(pattern)!r}", f"at most {MOST_SHARDS} numbers in rising order")
    for number in range(int(first), int(last) + 1):
        yield f"{pattern[: match.start()]}{number:0{len(first)}d}{pattern[match.end() :]}"


def fetch_shards(contents: Iterable[Content]) -> None:
    """Fetch the shards of all these members that are not on this machine, several at once.

    One that cannot be had is said; its members cannot be read.
    """
    shards = {id(content.shard): content.shard for content in contents if isinstance(content, Member)}
    remote = [shard for shard in shards.values() if shard.path is None and is_remote(shard.location)]
    if not remote:
        return
    log.info("fetching %d shards", len(remote))

    def fetched(shard: Shard) -> DataError | None:
        try:
            shard.local()
        except DataError as error:
            return error
        return None

    with ThreadPoolExecutor(FETCHED_AT_ONCE) as threads:
        for number, error in enumerate(threads.map(fetched, remote), start=1):
            if error is None:
                log.info("shard %d of %d is here", number, len(remote))
            else:
                log.warning("%s", printable(str(error)))


def index_location(location: str) -> str:
    """Where a shard's index lies: beside it, as <shard>.json. A query behind the path of a URL stays at the end."""
    if not is_remote(location):
        return f"{location}.json"
    path, question, query = location.partition("?")
    return f"{path}.json{question}{query}"


def entries_of(shard: Shard) -> tuple[list[Entry], list[str]]:
    """The images of a shard in their order, and the names of samples without one.

    From the index beside it; without one that can be used, from the archive's headers. Raises DataError when those
    cannot be read either.
    """
    try:
        index = index_of(shard)
        if index is not None:
            return entries_from_index(shard, index), []
    except DataError as error:
        log.warning("%s The archive's headers are read instead.", printable(str(error)))
    return entries_from_headers(shard)


def index_of(shard: Shard) -> bytes | None:
    """The content of the file beside a shard that says where its images are; None when there is none.

    Raises DataError when it is there and cannot be read.
    """
    location = index_location(shard.location)
    if not is_remote(location):
        path = Path(location)
        try:
            return path.read_bytes() if path.is_file() else None
        except OSError as error:
            raise DataError(f"index of {shard.shown} cannot be read ({error.strerror})") from error
    try:
        return fetch(location).read_bytes()
    except DataError:
        log.info("%s has no index beside it: its headers are read", shard.shown)
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
                raise DataError(f"index of {shard.shown} names a place outside of the archive")
            size = int(sample["height"]), int(sample["width"])
            entries.append(Entry(str(sample["name"]), member, size=size, hash=str(sample["hash"])))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"index of {shard.shown} cannot be used ({error!r})") from error
    if not is_remote(shard.location) and shard.size() != total:
        raise DataError(f"index of {shard.shown} is that of an archive of {total} bytes")
    return entries


def entries_from_headers(shard: Shard) -> tuple[list[Entry], list[str]]:
    """The images of an archive, found by reading its headers. Raises DataError when it is damaged or none."""
    total = shard.size()
    images: dict[str, Entry] = {}
    samples: dict[str, None] = {}
    try:
        with shard.local().open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                if not info.isreg() or info.issparse():
                    continue
                key, suffix = split_name(info.name)
                samples[key] = None
                if info.offset_data + info.size > total:
                    raise DataError(f"shard {shard.shown} ends in the middle of an image", "a whole archive")
                if suffix in IMAGE_SUFFIXES and info.size > 0:
                    images.setdefault(key, Entry(info.name, Member(shard, info.offset_data, info.size)))
            file.seek(archive.offset)  # where tarfile met what is no header: the archive's end, or damage
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                came = f"shard {shard.shown} is damaged or cut off behind {len(samples)} samples"
                raise DataError(came, "a whole archive")
    except OSError as error:
        raise DataError(f"shard {shard.shown} cannot be read ({error.strerror})", "a readable archive") from error
    except tarfile.TarError as error:
        came = f"shard {shard.shown} is damaged or no archive ({error})"
        raise DataError(came, "a .tar file that is not compressed") from error
    return list(images.values()), [key for key in samples if key not in images]


def split_name(name: str) -> tuple[str, str]:
    """("folder/a", ".seg.png") of "folder/a.seg.png": files with an equal first part are one sample."""
    folder, slash, last = name.rpartition("/")
    stem, dot, suffix = last.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{suffix.lower()}"
