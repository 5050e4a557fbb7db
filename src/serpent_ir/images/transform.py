"""From a file or a folder of images to another, through a function of one picture: who may be written where."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serpent_ir.errors import DataError, ImageReadError, ImageWriteError, RestorationError, out_of_memory_as
from serpent_ir.images.folder import WRITABLE_SUFFIXES, list_folder
from serpent_ir.images.picture import Picture
from serpent_ir.images.read import check_signature, read_image
from serpent_ir.images.write import check_writable_suffix, write_image

Transform = Callable[[Picture, str], Picture]
"""The new picture, from a picture and its name: the path below the folder it was found in, with forward slashes."""


@dataclass(frozen=True)
class FolderPlan:
    """(input, output) of every image below `folder`, and the other files there, which are left alone."""

    folder: Path
    pairs: list[tuple[Path, Path]]
    ignored: list[Path]


@dataclass(frozen=True)
class FileOutcome:
    """What became of one file: written to `target`, or left out for `reason`."""

    source: Path
    target: Path
    reason: str | None


@dataclass(frozen=True)
class FolderSummary:
    """What became of every image of a folder, in the order of the files, and how many seconds it took in all.

    ignored: the files whose name is not that of an image; a folder is done completely when there are none.
    """

    outcomes: tuple[FileOutcome, ...]
    ignored: list[Path]
    seconds: float

    @property
    def done(self) -> list[FileOutcome]:
        return [outcome for outcome in self.outcomes if outcome.reason is None]

    @property
    def failed(self) -> list[FileOutcome]:
        return [outcome for outcome in self.outcomes if outcome.reason is not None]

    @property
    def complete(self) -> bool:
        """Whether every file of the folder was done."""
        return not self.failed and not self.ignored


def transform_file(source: Path, target: Path, transform: Transform, name: str | None = None) -> None:
    """Read `source`, apply `transform`, write `target` (its suffix decides the format; see `write_image`).

    name: what `transform` is told, by default the file's name. Raises what reading, transforming and writing raise.
    """
    picture = read_image(source)
    with out_of_memory_as(
        RestorationError, f"{source}: there is not enough memory for {picture.width} x {picture.height}"
    ):
        transformed = transform(picture, source.name if name is None else name)
    write_image(transformed, target)


def transform_folder(
    plan: FolderPlan,
    transform: Transform,
    on_outcome: Callable[[FileOutcome], None] | None = None,
) -> FolderSummary:
    """Apply `transform` to the input of every pair of `plan` and write the result to the output.

    on_outcome: called after each file. A file for which ImageReadError, ImageWriteError or RestorationError is raised
    (too little memory included) is left out, with the reason in the summary; the others are not affected. Results that
    exist already are replaced. Any other error ends the run.
    """
    start = time.perf_counter()
    outcomes = []
    for read_from, write_to in plan.pairs:
        reason = None
        try:
            transform_file(read_from, write_to, transform, read_from.relative_to(plan.folder).as_posix())
        except (ImageReadError, ImageWriteError, RestorationError) as error:
            reason = str(error)
        outcomes.append(FileOutcome(read_from, write_to, reason))
        if on_outcome is not None:
            on_outcome(outcomes[-1])
    return FolderSummary(tuple(outcomes), plan.ignored, time.perf_counter() - start)


def plan_file(
    source: Path,
    target: Path | None,
    word: str,
    overwrite: bool = False,
    suffixes: tuple[str, ...] = WRITABLE_SUFFIXES,
) -> Path:
    """Where the result of the file `source` goes.

    target: the file itself; or an existing folder, in which the name is kept; or None for `<stem>-<word><suffix>` next
        to the source. A suffix that was not asked for and is not in `suffixes` becomes .png.
    overwrite: allow the result to replace the source.

    Raises ImageReadError when the source is missing, empty or no image; ImageWriteError when the result would replace
    the source, or its suffix has no format.
    """
    check_signature(source)
    if target is None:
        target = writable_name(source.with_name(f"{source.stem}-{word}{source.suffix}"), suffixes)
    elif target.is_dir():
        target = writable_name(target / source.name, suffixes)
    check_writable_suffix(target)
    if not overwrite and target.exists() and os.path.samefile(source, target):
        raise ImageWriteError(f"{target} is the input itself", "another place for the output")
    return target


def plan_folder(source: Path, target: Path, suffixes: tuple[str, ...] = WRITABLE_SUFFIXES) -> FolderPlan:
    """Where every image below `source` goes, sorted; outputs are distinct, and none of them is an input.

    Outputs lie below `target` under the names of their inputs; a suffix that is not in `suffixes` becomes .png.

    Raises DataError when there is no image, ImageWriteError when `target` is `source`, lies in it, or when an output
    would replace an input.
    """
    if lies_in(target, source):
        raise ImageWriteError(f"{target} lies in the input folder {source}", "a folder outside of it for the output")
    if target.exists() and not target.is_dir():
        raise ImageWriteError(f"{target} is a file", "a folder for the results of a folder")
    content = list_folder(source)
    inputs = content.images
    if not inputs:
        raise DataError(
            f"{source} holds no image among {len(content.others)} files",
            "files of the kinds PNG, JPEG, TIFF, WebP, GIF or AVIF",
        )
    outputs: dict[Path, Path] = {
        path: target / path.relative_to(source) for path in inputs if path.suffix.lower() in suffixes
    }
    taken = set(outputs.values())
    for path in inputs:
        if path not in outputs:
            output = writable_name(target / path.relative_to(source), suffixes)
            if output in taken:  # a.gif next to a.png: a.gif.png
                output = target / f"{path.relative_to(source)}.png"
            while output in taken:
                output = output.with_name(f"{output.name}.png")
            outputs[path] = output
            taken.add(output)
    overwritten = {os.path.realpath(path) for path in inputs} & {os.path.realpath(path) for path in taken}
    if overwritten:
        raise ImageWriteError(f"{min(overwritten)} would be both input and output", "a folder elsewhere for the output")
    return FolderPlan(source, [(path, outputs[path]) for path in inputs], content.others)


def lies_in(path: Path, folder: Path) -> bool:
    """Whether `path` is `folder` or below it, be it by links; neither need exist."""
    real = Path(os.path.realpath(path))
    return folder.exists() and any(one.exists() and os.path.samefile(one, folder) for one in (real, *real.parents))


def writable_name(path: Path, suffixes: tuple[str, ...]) -> Path:
    """`path`, with the suffix .png where its own is not one of `suffixes`."""
    return path if path.suffix.lower() in suffixes else path.with_suffix(".png")
