"""One image through a transform: its bytes, or its file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeGuard, runtime_checkable

from serpent_ir.errors import RestorationError, out_of_memory_as
from serpent_ir.images import OutputOptions, Picture, decode_picture, encode_picture, read_content
from serpent_ir.images.large import size_of_file
from serpent_ir.images.write import write_picture
from serpent_ir.restoration.large import discard_parts
from serpent_ir.restoration.outcome import FileOutcome, Seconds
from serpent_ir.restoration.plan import Job


class Transform(Protocol):
    """New pictures from old ones of equal height and width, in their order.

    names: of the pictures, the path of each below the folder it was found in, with forward slashes. Nothing that is
    returned depends on the others that came along, up to the rounding of floating point sums.
    """

    def __call__(self, pictures: Sequence[Picture], names: Sequence[str]) -> list[Picture]: ...


@runtime_checkable
class LargeTransform(Transform, Protocol):
    """A transform that also does without having all of a picture in memory."""

    def is_large(self, height: int, width: int) -> bool:
        """Whether a picture of that size is to go by rows."""
        ...

    def by_rows(self, source: Path, target: Path, options: OutputOptions) -> tuple[str, ...]:
        """From file to file; returns the notes on it. Raises ImageReadError, RestorationError, ImageWriteError."""
        ...


def goes_by_rows(transform: Transform, height: int, width: int) -> TypeGuard[LargeTransform]:
    return isinstance(transform, LargeTransform) and transform.is_large(height, width)


@dataclass(frozen=True)
class Each:
    """The transform that applies a function to one picture at a time."""

    function: Callable[[Picture, str], Picture]

    def __call__(self, pictures: Sequence[Picture], names: Sequence[str]) -> list[Picture]:
        return [self.function(picture, name) for picture, name in zip(pictures, names, strict=True)]


def transform_content(
    content: bytes, name: str, suffix: str, transform: Transform, options: OutputOptions, place: str | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of an image file -> those of its result, in the format of `suffix`, and the notes on it.

    name: what `transform` is told; place: what errors of reading call it, None: the name. Raises ImageReadError,
    RestorationError, ImageWriteError.
    """
    picture = decode_picture(content, place or name)
    result = transformed(transform, [picture], [name])[0]
    return encode_picture(result, suffix, options), result.notes


def transform_file(
    job: Job, transform: Transform, options: OutputOptions | None = None, alone: bool = False
) -> FileOutcome:
    """Read the source of `job`, apply `transform`, write its target, whose suffix decides the format.

    alone: see `replacing`. Raises ImageReadError, RestorationError, ImageWriteError.
    """
    start = time.perf_counter()
    height, width = size_of_file(job.source)
    if goes_by_rows(transform, height, width):
        notes = transform.by_rows(job.source, job.target, options or OutputOptions())
        seconds, written = Seconds(compute=time.perf_counter() - start), job.target.stat().st_size
        return FileOutcome(job, "done", None, width, height, notes, seconds, written=written)
    picture = decode_picture(read_content(job.source), str(job.source))
    read = time.perf_counter()
    result = transformed(transform, [picture], [job.name])[0]
    computed = time.perf_counter()
    written = write_target(result, job.target, options or OutputOptions(), alone)
    seconds = Seconds(read - start, computed - read, time.perf_counter() - computed)
    return FileOutcome(job, "done", None, picture.width, picture.height, result.notes, seconds, written=written)


def write_target(picture: Picture, target: Path, options: OutputOptions, alone: bool) -> int:
    """`write_picture`, after which nothing is left of a run that began to make the same file by rows."""
    written = write_picture(picture, target, options, alone)
    discard_parts(target)
    return written


def transformed(transform: Transform, pictures: Sequence[Picture], names: Sequence[str]) -> list[Picture]:
    """`transform(pictures, names)`, with too little memory as RestorationError."""
    size = f"{pictures[0].width} x {pictures[0].height}"
    with out_of_memory_as(RestorationError, f"{names[0]}: there is not enough memory for {size}"):
        return transform(pictures, names)
