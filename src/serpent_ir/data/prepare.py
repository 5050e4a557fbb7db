"""A collection of photographs into WebDataset shards with an index: verified, scaled if asked, in several processes.

What a shard holds follows from the sorted photographs and the options alone: shard k holds photographs k N to
(k + 1) N - 1 of them, without those that cannot be read. Its index is there before it has its name, so a shard without
one is not one of ours.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from serpent_ir.data.listing import list_photographs
from serpent_ir.data.loader import begin_worker, fresh_context
from serpent_ir.data.photographs import Entry, scale_down, scaled_size
from serpent_ir.data.shards import fetch_shards, index_location, locations_of
from serpent_ir.data.source import PhotographSource
from serpent_ir.errors import DataError, FileWriteError, ImageReadError, ImageWriteError
from serpent_ir.files import TEMPORARY_NAMES, printable, replacing
from serpent_ir.images import content_hash, decode_pixels, encode_pixels
from serpent_ir.urls import is_remote

FILE_FORMATS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp"}
IN_FLIGHT = 4
"""Photographs that a process is given ahead."""


@dataclass(frozen=True)
class Preparation:
    """What is done to each photograph, and how many of them a shard is for.

    size: photographs whose shorter side is longer are scaled down to it, antialiased. square: the largest centred
    square is cut out first. format: png, webp (both without loss) or jpg (quality 95); None keeps PNG, JPEG and WebP
    files that need no change byte for byte, and writes PNG else.
    """

    size: int | None = None
    square: bool = False
    format: Literal["png", "webp", "jpg"] | None = None
    shard_size: int = 1000


@dataclass(frozen=True)
class Prepared:
    """One photograph as it goes into a shard; or, with a `reason`, why it does not."""

    name: str
    suffix: str = ""
    content: bytes = b""
    height: int = 0
    width: int = 0
    hash: str = ""
    reason: str = ""


@dataclass(frozen=True)
class PreparationReport:
    """What became of a collection.

    shards: their names in the output folder. images: how many photographs they hold. left_out: name and reason of each
    that could not be read. problems: what else could not be used. others: files that are no images by their suffix.
    kept: how many shards were there already.
    """

    shards: list[str]
    images: int
    left_out: list[dict[str, str]]
    problems: list[str]
    others: list[str]
    kept: int

    @property
    def complete(self) -> bool:
        return not (self.left_out or self.problems or self.others)


def prepare_shards(
    source: PhotographSource,
    out: Path,
    preparation: Preparation,
    workers: int | None = None,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PreparationReport:
    """Write shards of the photographs of `source` (the first `limit` of them) into the folder `out`.

    workers: processes that decode and encode; 0: this one does; None: one for each processor. on_progress(done, total)
    is called at the start and after each photograph. Finished shards of the same photographs and options are kept, so
    that a run that was stopped goes on.

    Raises DataError when there is no photograph that can be read (no shard is left then), `out` holds shards of another
    collection or made with other options, or the photographs lie there; FileWriteError when `out` cannot be written.
    """
    listing = list_photographs(source)
    if out.resolve() in folders_of(source):
        raise DataError(f"{out} is where the photographs lie", "another folder for the shards")
    entries = listing.entries[:limit]
    plan = [entries[first : first + preparation.shard_size] for first in range(0, len(entries), preparation.shard_size)]
    names = [f"shard-{number:06d}.tar" for number in range(len(plan))]
    finished = finished_shards(out, names, plan, preparation)
    missing = [number for number in range(len(plan)) if number not in finished]
    fetch_shards(entry.clean for number in missing for entry in plan[number])

    done = sum(len(plan[number]) for number in finished)
    if on_progress is not None:
        on_progress(done, len(entries))

    def counted(results: Iterator[Prepared], part: Sequence[Entry]) -> Iterator[Prepared]:
        """The results for one shard, each told to `on_progress`."""
        nonlocal done
        for result in islice(results, len(part)):
            done += 1
            if on_progress is not None:
                on_progress(done, len(entries))
            yield result

    images = sum(len(index["samples"]) for index in finished.values())
    left_out = {number: index["left_out"] for number, index in finished.items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for leftover in out.glob(TEMPORARY_NAMES):
            leftover.unlink()
        with Conversion(preparation, (os.cpu_count() or 1) if workers is None else workers) as conversion:
            results = conversion.of(entry for number in missing for entry in plan[number])
            for number in missing:
                identity = identity_of(plan[number], preparation)
                index = write_shard(out / names[number], counted(results, plan[number]), identity)
                images += len(index["samples"])
                left_out[number] = index["left_out"]
        if not images:
            for name in names:
                (out / name).unlink()
                index_path(out / name).unlink()
    except OSError as error:
        if isinstance(error, (ImageReadError, ImageWriteError)):
            raise
        raise FileWriteError(f"shards in {out} cannot be written ({error.strerror})") from error
    reasons = [reason for number in range(len(plan)) for reason in left_out[number]]
    if not images:
        named = "; ".join(reason["reason"] for reason in reasons[:3])
        raise DataError(f"no readable image in {source.label} ({printable(named)})", remedy="No shard was written.")
    return PreparationReport(names, images, reasons, listing.problems, listing.others, len(finished))


def converted(entry: Entry, preparation: Preparation) -> Prepared:
    """Decode a photograph completely and make what goes into the shard."""
    try:
        content = entry.clean.read()
        pixels = decode_pixels(content, entry.name)
        changed = changed_pixels(pixels, preparation)
        same = changed is pixels
        suffix = f".{preparation.format or 'png'}"
        kept = next((known for beginning, known in FILE_FORMATS.items() if content.startswith(beginning)), None)
        if same and kept is not None and preparation.format in (None, kept[1:]):
            suffix = kept
        else:
            content = encode_pixels(changed, suffix)
            if suffix == ".jpg":
                changed = decode_pixels(content, entry.name)
        height, width = changed.shape[1:]
        return Prepared(entry.name, suffix, content, height, width, content_hash(changed))
    except (ImageReadError, ImageWriteError) as error:
        return Prepared(entry.name, reason=str(error))


def changed_pixels(pixels: Tensor, preparation: Preparation) -> Tensor:
    """Cut to a square and scaled down as asked; the same tensor when nothing is to be done."""
    height, width = pixels.shape[1:]
    if preparation.square and height != width:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[:, top : top + side, left : left + side]
        height = width = side
    if preparation.size is not None:
        pixels = scale_down(pixels, *scaled_size(height, width, preparation.size))
    return pixels


class Conversion:
    """`converted` for a stream of entries, in order, in `workers` processes or in this one."""

    def __init__(self, preparation: Preparation, workers: int) -> None:
        self.preparation = preparation
        self.workers = workers
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Conversion:
        if self.workers:
            self.pool = ProcessPoolExecutor(self.workers, fresh_context(), initializer=begin)
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def of(self, entries: Iterable[Entry]) -> Iterator[Prepared]:
        """Raises DataError when a process dies."""
        if self.pool is None:
            yield from (converted(entry, self.preparation) for entry in entries)
            return
        waiting: deque[tuple[Entry, Future[Prepared]]] = deque()
        remaining = iter(entries)
        try:
            while True:
                for entry in islice(remaining, IN_FLIGHT * self.workers - len(waiting)):
                    waiting.append((entry, self.pool.submit(converted, entry, self.preparation)))
                if not waiting:
                    return
                yield waiting[0][1].result()
                waiting.popleft()
        except BrokenProcessPool as error:
            near = ", ".join(entry.name for entry, _ in list(waiting)[: self.workers + 1])
            raise DataError(f"a process died of one of these images, or was killed: {near}") from error


def begin() -> None:
    """One thread for each of the processes."""
    begin_worker()
    torch.set_num_threads(1)


def write_shard(path: Path, results: Iterable[Prepared], identity: dict[str, Any]) -> dict[str, Any]:
    """Write the archive of those that can be read, and its index: `identity`, length, where each image lies, what was
    left out.

    Members are named by their number among `results`. Equal results give equal bytes. An earlier shard goes before the
    index is written, and the new one gets its name after that: at no time does one lie beside the index of another, or
    without. Raises OSError.
    """
    samples: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    with replacing(path) as temporary:
        with temporary.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for number, result in enumerate(results):
                if result.reason:
                    left_out.append({"name": result.name, "reason": result.reason})
                    continue
                info = tarfile.TarInfo(f"{number:06d}{result.suffix}")
                info.size = len(result.content)
                place = {"offset": file.tell() + tarfile.BLOCKSIZE, "size": info.size}
                archive.addfile(info, io.BytesIO(result.content))
                facts = {"height": result.height, "width": result.width, "hash": result.hash}
                samples.append({"name": result.name, **place, **facts})
        index = {**identity, "bytes": temporary.stat().st_size, "samples": samples, "left_out": left_out}
        path.unlink(missing_ok=True)
        with replacing(index_path(path)) as beside:
            beside.write_text(json.dumps(index, indent=0) + "\n", encoding="ascii")
    return index


def index_path(shard: Path) -> Path:
    return Path(index_location(str(shard)))


def folders_of(source: PhotographSource) -> set[Path]:
    """Where on this machine the photographs lie."""
    if not source.is_shards:
        return {source.folder().resolve()}
    shards = locations_of(source.expanded())
    return {Path(shard).resolve().parent for shard in shards if not is_remote(shard)}


def identity_of(entries: Sequence[Entry], preparation: Preparation) -> dict[str, Any]:
    """What a shard is to hold, as its index says it: options, names of the photographs, and lengths of their files."""

    def digest(lines: Iterable[str]) -> str:
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    names = digest(entry.name for entry in entries)
    lengths = digest(str(entry.clean.length()) for entry in entries)
    return {"options": asdict(preparation), "names": names, "lengths": lengths}


def finished_shards(
    out: Path, names: Sequence[str], plan: Sequence[Sequence[Entry]], preparation: Preparation
) -> dict[int, Any]:
    """Number -> index of the shards that are there already, and are what they are to be.

    A shard is not, when a file changed its length, or it is cut off. Raises DataError when `out` holds shards of other
    photographs or options, or without an index that was written here.
    """
    finished: dict[int, Any] = {}
    remedy = "Name an empty folder, or give the same source and options as before."
    there = {path.name for path in out.glob("*.tar")} if out.is_dir() else set()
    if there - {*names}:
        raise DataError(f"{out} holds other shards, such as {min(there - {*names})}", remedy=remedy)
    for number in (number for number, name in enumerate(names) if name in there):
        shard = out / names[number]
        try:
            index = json.loads(index_path(shard).read_bytes())
            found = {key: index[key] for key in ("options", "names", "lengths", "bytes", "samples", "left_out")}
            whole = index["bytes"] == shard.stat().st_size
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{shard} has no index that serpent wrote", remedy=remedy) from error
        identity = identity_of(plan[number], preparation)
        if (found["options"], found["names"]) != (identity["options"], identity["names"]):
            raise DataError(f"{shard} holds other photographs or was made with other options", remedy=remedy)
        if whole and found["lengths"] == identity["lengths"]:
            finished[number] = index
    return finished
