"""Images in folders behind URLs that fsspec knows (s3://, gs://, ...): who is written where, read and written whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from serpent_ir.errors import DataError, ImageReadError, ImageWriteError, SerpentError
from serpent_ir.files import leftover_name
from serpent_ir.images import IMAGE_SUFFIXES, list_folder
from serpent_ir.restoration.pipeline import stamp_of
from serpent_ir.restoration.plan import Job, Naming, Plan, distinct_results, no_image_in, plan_folder
from serpent_ir.urls import file_system, is_remote, named_errors, shown, version_of

OF_THIS_MACHINE = ("file://", "local://")
CACHES = ("simplecache", "filecache", "blockcache", "cached")
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "memory"}
"""Kinds of URLs where what is written is there whole or not at all; elsewhere it is moved to its name."""

Stamp: TypeAlias = "tuple[int, int]"
"""Size in bytes, and a number that changes when the file does; 0 where a file system tells nothing of the kind."""


@dataclass(frozen=True)
class Url:
    """A file called `name` below the folder behind a URL, or that folder. As text, it is without what gives access."""

    folder: str
    name: str = ""

    def __str__(self) -> str:
        return f"{shown(self.folder).rstrip('/')}/{self.name}" if self.name else shown(self.folder)

    def __truediv__(self, name: str) -> Url:
        return Url(self.folder, f"{self.name}/{name}".lstrip("/"))

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def relative_to(self, folder: Url) -> PurePosixPath:
        return PurePosixPath(self.name).relative_to(folder.name)

    def located(self) -> tuple[Any, str]:
        """The file system, and the path there."""
        system, root = file_system(self.folder, "ray")
        return system, f"{root.rstrip('/')}/{self.name}" if self.name else root

    def named_errors(self, kind: type[SerpentError], failed: str, expected: str) -> AbstractContextManager[None]:
        return named_errors(kind, self.folder, failed, expected, str(self))

    def exists(self) -> bool:
        with self.named_errors(DataError, "cannot be looked for", "a file system that answers"):
            system, path = self.located()
            return bool(system.exists(path))

    def read(self) -> bytes:
        """Raises ImageReadError."""
        with self.named_errors(ImageReadError, "cannot be read", "a readable image file"):
            system, path = self.located()
            return bytes(system.cat_file(path))

    def write(self, content: bytes) -> None:
        """The whole file or nothing of it; see OBJECT_STORES. Raises ImageWriteError."""
        with self.named_errors(ImageWriteError, "cannot be written", "a place that can be written"):
            system, path = self.located()
            if OBJECT_STORES & {*((system.protocol,) if isinstance(system.protocol, str) else system.protocol)}:
                system.pipe_file(path, content)
                return
            temporary = leftover_name(Path(path)).as_posix()
            system.makedirs(PurePosixPath(path).parent.as_posix(), exist_ok=True)
            try:
                system.pipe_file(temporary, content)
                system.mv(temporary, path)
                if system.exists(temporary):  # WebHDFS leaves what was there, without a word
                    system.rm_file(path)
                    system.mv(temporary, path)
            except BaseException:
                with suppress(Exception):
                    system.rm_file(temporary)
                raise


Anywhere: TypeAlias = "Path | Url"


def place_of(location: str) -> Anywhere:
    """What a URL or a path stands for; URLs of files of this machine are paths, though a cache be before them."""
    if not is_remote(location) or os.path.exists(location):
        return Path(location)
    url = without_caches(location)
    return Path(url.partition("://")[2]) if url.lower().startswith(OF_THIS_MACHINE) else Url(location)


def without_caches(url: str) -> str:
    """What lies behind the caches of a chain: simplecache::s3://bucket/in -> s3://bucket/in."""
    first, _, rest = url.partition("::")
    return without_caches(rest) if rest and first.lower() in CACHES else url


def plan_anywhere(source: Anywhere, target: Anywhere, naming: Naming | None = None) -> Plan[Anywhere]:
    """`plan_folder` for folders anywhere. Raises as it does, and MissingExtraError for kinds of URLs.

    Objects whose names are no paths below a folder (a//b.png) are ignored, too.
    """
    if isinstance(source, Path) and isinstance(target, Path):
        return plan_folder(source, target, naming)
    if isinstance(source, Url) and isinstance(target, Url):
        check_apart(source, target)
    images, others = content_of(source)
    if not images:
        raise no_image_in(source, len(others))
    results = distinct_results({name: Path(name) for name in images}, naming or Naming())
    jobs = tuple(Job(source / name, target / results[name].as_posix(), name) for name in images)
    return Plan(source, target, jobs, tuple(source / name for name in others))


def check_apart(source: Url, target: Url) -> None:
    """Raise ImageWriteError when one of the folders lies in the other: outputs could be inputs."""
    with target.named_errors(DataError, "cannot be used", "a URL that fsspec knows"):
        (system, path), (other_system, other_path) = (
            Url(without_caches(url.folder)).located() for url in (source, target)
        )
    first, second = f"{path.rstrip('/')}/", f"{other_path.rstrip('/')}/"
    if system == other_system and (first.startswith(second) or second.startswith(first)):
        raise ImageWriteError(
            f"one of the folders {source} and {target} lies in the other", "folders apart for input and output"
        )


def content_of(folder: Anywhere) -> tuple[list[str], list[str]]:
    """Paths below the folder, sorted, of its images and its other files; see `images.FolderContent`."""
    if isinstance(folder, Path):
        content = list_folder(folder)
        images, others = (
            [path.relative_to(folder).as_posix() for path in of] for of in (content.images, content.others)
        )
        return images, others
    names = [name for name in sorted(listing(folder)) if not any(part.startswith(".") for part in name.split("/"))]
    images = [name for name in names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and is_path(name)]
    return images, sorted({*names} - {*images})


def is_path(name: str) -> bool:
    """Whether an object's name can be that of a file: nothing empty between slashes, no zero byte."""
    return all(name.split("/")) and "\0" not in name


def listing(folder: Url) -> dict[str, Stamp]:
    """All files below a folder, hidden ones too; none where there is no such folder. Raises DataError."""
    with folder.named_errors(DataError, "cannot be listed", "a folder that can be read"):
        system, root = folder.located()
        system.invalidate_cache()
        try:
            found = system.find(root, detail=True)
        except FileNotFoundError:
            return {}
        stamps = {}
        for path, facts in found.items():
            version = version_of(facts).encode()
            number = int.from_bytes(hashlib.sha256(version).digest()[:6], "big") if version else 0
            stamps[path.removeprefix(root).lstrip("/")] = facts.get("size") or 0, number
        return {name: stamp for name, stamp in stamps.items() if name and not name.endswith("/")}


def stamps_of(plan: Plan[Anywhere]) -> Callable[[Anywhere], Stamp | None]:
    """Says of the sources and targets of a plan what `stamp_of` says of files; behind URLs, as they are now.

    Of a source, nothing where its file system does not tell when it changed.
    """
    known: dict[Anywhere, Stamp] = {}
    if isinstance(plan.source, Url):
        known = {plan.source / name: stamp for name, stamp in listing(plan.source).items() if stamp[1]}
    if isinstance(plan.target, Url):
        known |= {plan.target / name: stamp for name, stamp in listing(plan.target).items()}
    return lambda place: stamp_of(place) if isinstance(place, Path) else known.get(place)
