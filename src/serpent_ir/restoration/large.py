"""Image files that do not fit into memory: from file to file, some rows at a time, to be continued after any stop."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from serpent_ir.errors import ImageWriteError, RestorationError, SerpentError, out_of_memory_as
from serpent_ir.files import replacing, sole_use
from serpent_ir.images import OutputOptions
from serpent_ir.images.large import PictureReader, PictureWriter
from serpent_ir.restoration.evaluation import Evaluation
from serpent_ir.restoration.pixels import missing_part
from serpent_ir.restoration.rows import EnlargedRows

if TYPE_CHECKING:
    from serpent_ir.models.out_of_core import ImageRows
    from serpent_ir.restoration.restorer import Restorer

TASK, PROGRESS, SAMPLES, MAPS, LOCK = "task.json", "progress.json", "samples", "maps", "lock"
PATIENCE = 5.0
"""Seconds to wait for the remains of a run that was killed."""


class Planes:
    """The rows of a file as red, green, blue and, where there is one, alpha; colours as they are, beyond [0, 1] too."""

    def __init__(self, reader: PictureReader) -> None:
        self._reader = reader
        self.height, self.width = reader.height, reader.width
        self.first = reader.read(0, 1)
        self.channels = 3 if self.first.alpha is None else 4

    def read(self, first: int, end: int) -> Tensor:
        picture = self._reader.read(first, end)
        return picture.pixels if picture.alpha is None else torch.cat([picture.pixels, picture.alpha])


class Restorable:
    """What of `planes` is restored: colours within [0, 1], and with a mask, the part that is missing."""

    def __init__(self, planes: Planes, channels: int) -> None:
        self._planes, self.channels = planes, channels
        self.height, self.width = planes.height, planes.width

    def read(self, first: int, end: int) -> Tensor:
        rows = self._planes.read(first, end)
        colours = rows[:3].clamp(0, 1)
        return colours if self.channels == 3 else torch.cat([colours, missing_part(rows[3:])])


class Seen:
    """`image` as a model sees it."""

    def __init__(self, image: ImageRows, see: Callable[[Tensor], Tensor]) -> None:
        self._image, self._see, self.channels = image, see, image.channels
        self.height, self.width = image.height, image.width

    def read(self, first: int, end: int) -> Tensor:
        return self._see(self._image.read(first, end)[None])[0]


def restore_large(
    restorer: Restorer,
    source: Path,
    target: Path,
    options: OutputOptions | None = None,
    settings: Any = None,
    on_stage: Callable[[int, int], None] | None = None,
) -> tuple[str, ...]:
    """`restorer` on the file `source`, into the file `target`; returns the notes on it.

    Beside `target` there is a hidden folder while it goes on. After a stop, the same call goes on from there: if the
    source has the same size and date, and options and `settings` (anything JSON takes, that decides the result) are
    the same. on_stage: is told how far it is, and of how much.

    Raises ImageReadError, ImageWriteError, RestorationError; the last one for an ensemble, which needs the whole image,
    and when another process restores the same file.
    """
    if restorer.ensemble:
        raise RestorationError(
            f"{source} is too large for an ensemble in the memory there is", "an image that fits", "Leave it out."
        )
    folder = target.parent / f".serpent-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}.parts"
    status = source.stat()
    task = {
        "source": [os.path.realpath(source), status.st_size, status.st_mtime_ns],
        "output": asdict(options or OutputOptions()),
        "settings": settings,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with sole_use(folder / LOCK, PATIENCE):
            prepare(folder, json.loads(json.dumps(task)))
            with out_of_memory_as(RestorationError, f"{source}: there is not enough memory"):
                notes = restore_in(folder, restorer, source, target, options, on_stage)
            shutil.rmtree(folder)
            return notes
    except TimeoutError as error:
        raise RestorationError(f"{target} is being made by another process", "one at a time") from error
    except SerpentError:
        raise
    except OSError as error:
        raise ImageWriteError(f"{folder} cannot be used ({error.strerror or error})", "a folder to work in") from error


def prepare(folder: Path, task: object) -> None:
    """Leave in the folder what belongs to the same task, if anything."""
    try:
        same = json.loads((folder / TASK).read_text(encoding="utf-8")) == task
    except (OSError, ValueError):
        same = False
    if not same:
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
        write_json(folder / TASK, task)


def restore_in(
    folder: Path,
    restorer: Restorer,
    source: Path,
    target: Path,
    options: OutputOptions | None,
    on_stage: Callable[[int, int], None] | None,
) -> tuple[str, ...]:
    with PictureReader(source) as reader:
        planes = Planes(reader)
        restorer.check_picture(planes.first, str(source))
        before = EnlargedRows(Restorable(planes, restorer.channels), restorer.enlarge)
        after = EnlargedRows(before, restorer.upscale)
        everything = EnlargedRows(planes, restorer.enlarge * restorer.upscale)
        progress = Progress(folder / PROGRESS, restorer.planner.choose_by_rows(before.height, before.width))
        evaluation = progress.evaluation

        like = planes.first if restorer.channels == 3 else replace(planes.first, alpha=None)
        writer = PictureWriter(target, folder / SAMPLES, after.height, after.width, like, options)

        def write(first: int, rows: Tensor) -> None:
            end = first + rows.shape[1]
            given, alpha = after.read(first, end), None
            pixels = restorer.finished(rows[None], given[None])[0]
            if restorer.channels == 3:
                known = everything.read(first, end)
                pixels = pixels + (known[:3] - given)
                alpha = known[3:].clamp(0, 1) if len(known) == 4 else None
            writer.write(first, replace(planes.first, pixels=pixels, alpha=alpha))
            progress.note(end)
            if on_stage is not None and evaluation.way == "tiles":
                on_stage(end, after.height)

        restorer.run_in_parts(
            Seen(before, restorer.seen),
            write,
            evaluation,
            folder / MAPS,
            begin=progress.rows if evaluation.way == "tiles" else 0,
            on_stage=on_stage,
        )
        writer.finish()
        return planes.first.notes


class Progress:
    """How the result is made, which stays as it was begun, and how many of its rows are there."""

    def __init__(self, path: Path, evaluation: Evaluation) -> None:
        self._path = path
        self.rows, self.evaluation = 0, evaluation
        try:
            self.rows, fields = json.loads(path.read_text(encoding="utf-8"))
            self.evaluation = Evaluation(**fields)
        except FileNotFoundError:
            self.note(0)

    def note(self, rows: int) -> None:
        self.rows = rows
        write_json(self._path, [rows, asdict(self.evaluation)])


def write_json(path: Path, value: object) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value), encoding="utf-8")
