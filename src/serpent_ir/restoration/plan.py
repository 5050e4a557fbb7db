"""Who is written where: from files to the names of their results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from typing_extensions import TypeVar

from serpent_ir.errors import DataError, ImageWriteError
from serpent_ir.images import WRITABLE_SUFFIXES, lies_in, list_folder
from serpent_ir.images.read import check_signature
from serpent_ir.images.write import check_writable_suffix

Place = TypeVar("Place", default=Path, covariant=True)
"""Where a file lies: a Path, or with a cluster also what is behind a URL (remote_files.py)."""

Source = TypeVar("Source")

SPELLINGS = {".jpeg": ".jpg", ".tif": ".tiff"}
"""Suffixes that stand for the same format."""


@dataclass(frozen=True)
class Job(Generic[Place]):
    """One file to read and one to write. name: the path below the plan's source, with forward slashes."""

    source: Place
    target: Place
    name: str


@dataclass(frozen=True)
class Plan(Generic[Place]):
    """What is to be done for many files; targets are distinct, and none of them is a source.

    source: the folder that all sources lie in; target: the folder that all results lie in. ignored: files in `source`
    whose names are not those of images, which are left alone.
    """

    source: Place
    target: Place
    jobs: tuple[Job[Place], ...]
    ignored: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Naming:
    """The name of a result follows from that of its source.

    suffix: of all results (lower case), None: that of the source, or .png where that is not one of `allowed`.
    """

    suffix: str | None = None
    allowed: tuple[str, ...] = WRITABLE_SUFFIXES

    def result(self, path: Path) -> Path:
        own = path.suffix.lower()
        if self.suffix is None:
            return path if own in self.allowed else path.with_suffix(".png")
        return path if SPELLINGS.get(own, own) == SPELLINGS.get(self.suffix, self.suffix) else self.renamed(path)

    def renamed(self, path: Path) -> Path:
        return path.with_suffix(self.suffix or ".png")

    def added(self, path: Path) -> Path:
        """a.gif -> a.gif.png, where a.png is taken."""
        return path.with_name(f"{path.name}{self.suffix or '.png'}")


def plan_file(
    source: Path, target: Path | None, word: str, overwrite: bool = False, naming: Naming | None = None
) -> Path:
    """Where the result of the file `source` goes.

    target: the file itself; or an existing folder, in which the name is kept; or None for `<stem>-<word><suffix>` next
        to the source.
    overwrite: allow the result to replace the source.

    Raises ImageReadError when the source is missing, empty or no image; ImageWriteError when the result would replace
    the source, its suffix has no format, or is not that of `naming`.
    """
    check_signature(source)
    naming = naming or Naming()
    target = target_of(source, target, word, naming)
    check_target(target, naming)
    if not overwrite and target.exists() and os.path.samefile(source, target):
        raise ImageWriteError(f"{target} is the input itself", "another place for the output")
    return target


def target_of(source: Path, target: Path | None, word: str, naming: Naming) -> Path:
    """Where `plan_file` puts the result, if nothing speaks against it."""
    if target is None:
        return naming.result(source.with_name(f"{source.stem}-{word}{source.suffix}"))
    return naming.result(target / source.name) if target.is_dir() else target


def check_target(target: Path, naming: Naming) -> None:
    """Raise ImageWriteError when the suffix of the file `target` has no format, or is not that of `naming`."""
    if naming.suffix is not None and naming.result(target) != target:
        raise ImageWriteError(
            f"{target} does not end as a file of the format {naming.suffix[1:]} does",
            f"such as {naming.renamed(target)}",
        )
    check_writable_suffix(target)


def plan_folder(source: Path, target: Path, naming: Naming | None = None) -> Plan:
    """The results of every image below `source`, sorted, below `target` under the names of their sources.

    Raises DataError when there is no image, ImageWriteError when `target` is `source`, lies in it, or when an output
    would replace an input.
    """
    if lies_in(target, source):
        raise ImageWriteError(f"{target} lies in the input folder {source}", "a folder outside of it for the output")
    content = list_folder(source)
    if not content.images:
        raise no_image_in(source, len(content.others))
    paths = {path: path.relative_to(source) for path in content.images}
    return Plan(source, target, jobs_of(paths, target, naming or Naming()), tuple(content.others))


def no_image_in(folder: object, others: int) -> DataError:
    return DataError(
        f"{folder} holds no image among {others} files", "files of the kinds PNG, JPEG, TIFF, WebP, GIF or AVIF"
    )


def plan_list(sources: Sequence[Path], target: Path, naming: Naming | None = None) -> Plan:
    """The results of the files `sources`, in their order, each once.

    They lie below `target` under the paths of their sources below the current folder, or where one lies elsewhere,
    below the folder that holds all of them; links to folders are followed. A file need not exist: reading it will fail.
    Raises DataError when there is none, or one is the root of the file system, ImageWriteError when an output would
    replace an input.
    """
    if not sources:
        raise DataError("the list names no file", "the path of an image on each line")
    parents = {parent: Path(os.path.realpath(parent)) for parent in {path.parent for path in sources}}
    real: dict[Path, Path] = {}
    for path in sources:
        place = Path(os.path.realpath(path)) if path.name in ("", "..") else parents[path.parent] / path.name
        if not place.name:
            raise DataError(f"the list names {path}", "the path of an image on each line")
        real.setdefault(place, path)
    current = Path(os.path.realpath(os.curdir))
    below = all(place.parent.is_relative_to(current) for place in real)
    common = current if below else Path(os.path.commonpath([place.parent for place in real]))
    paths = {path: place.relative_to(common) for place, path in real.items()}
    return Plan(common, target, jobs_of(paths, target, naming or Naming()))


def jobs_of(paths: dict[Path, Path], target: Path, naming: Naming) -> tuple[Job, ...]:
    """paths: each source and its path below the folder of all.

    Raises ImageWriteError when `target` is a file, or when an output is an input, be it under another name.
    """
    if target.exists() and not target.is_dir():
        raise ImageWriteError(f"{target} is a file", "a folder for the results")
    results = distinct_results(paths, naming)
    jobs = tuple(Job(source, target / results[source], path.as_posix()) for source, path in paths.items())
    inputs = identities(job.source for job in jobs)
    overwritten = sorted(path for file, path in identities(job.target for job in jobs).items() if file in inputs)
    if overwritten:
        raise ImageWriteError(f"{overwritten[0]} would be both input and output", "a folder elsewhere for the output")
    return jobs


def distinct_results(paths: Mapping[Source, Path], naming: Naming) -> dict[Source, Path]:
    """The path of each result below the folder of all. Names that are kept go before those that change."""
    results = {source: naming.result(path) for source, path in paths.items()}
    taken = {spelled(path) for source, path in results.items() if path == paths[source]}
    for source, path in paths.items():
        if results[source] != path:
            if spelled(results[source]) in taken:
                results[source] = naming.added(path)
            while spelled(results[source]) in taken:
                results[source] = naming.added(results[source])
            taken.add(spelled(results[source]))
    return results


def spelled(path: Path) -> str:
    """Equal for names that some file systems take for one."""
    return str(path).casefold()


def identities(paths: Iterable[Path]) -> dict[tuple[int, int], Path]:
    """Device and inode of each file that exists: equal for one file under several names."""
    found = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        found[status.st_dev, status.st_ino] = path
    return found
