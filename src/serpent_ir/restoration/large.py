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

from torch import Tensor

from serpent_ir.errors import ImageWriteError, RestorationError, SerpentError, out_of_memory_as
from serpent_ir.files import replacing, sole_use
from serpent_ir.images import OutputOptions
from serpent_ir.images.large import PictureReader, PictureWriter
from serpent_ir.restoration.evaluation import Evaluation
from serpent_ir.restoration.pixels import planes_of
from serpent_ir.restoration.rows import EnlargedRows, MappedRows
from serpent_ir.restoration.seams import LARGEST_SIDE

if TYPE_CHECKING:
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
        return planes_of(self._reader.read(first, end))


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
        factor = restorer.enlarge * restorer.upscale
        before = EnlargedRows(MappedRows(planes, restorer.restorable, restorer.channels), restorer.enlarge)
        after = EnlargedRows(before, restorer.upscale)
        beyond = EnlargedRows(MappedRows(planes, restorer.beyond, 3), factor)
        alpha = EnlargedRows(MappedRows(planes, lambda rows: rows[3:], 1), factor)
        progress = Progress(folder / PROGRESS, restorer.planner.choose_by_rows(before.height, before.width))
        evaluation = progress.evaluation

        like = planes.first if restorer.channels == 3 else replace(planes.first, alpha=None)
        writer = PictureWriter(target, folder / SAMPLES, after.height, after.width, like, options)

        def write(first: int, rows: Tensor) -> None:
            end = first + rows.shape[1]
            pixels = restorer.finished(rows[None], after.read(first, end)[None])[0] + beyond.read(first, end)
            opacity = None if like.alpha is None else alpha.read(first, end).clamp(0, 1)
            writer.write(first, replace(planes.first, pixels=pixels, alpha=opacity))
            progress.note(end)
            if on_stage is not None and evaluation.way == "tiles":
                on_stage(end, after.height)

        restorer.run_in_parts(
            MappedRows(before, lambda rows: restorer.seen(rows[None])[0], restorer.channels),
            write,
            evaluation,
            folder / MAPS,
            begin=progress.rows if evaluation.way == "tiles" else 0,
            on_stage=on_stage,
        )
        writer.finish()
        if not restorer.report:
            return planes.first.notes
        return *planes.first.notes, *restorer.report_on(middle_of(planes, restorer), evaluation=evaluation)


def middle_of(planes: Planes, restorer: Restorer) -> Tensor:
    """As much of the middle as a comparison needs, restorable."""
    side = -(-LARGEST_SIDE // restorer.enlarge)
    top, left = max((planes.height - side) // 2, 0), max((planes.width - side) // 2, 0)
    rows = planes.read(top, min(top + side, planes.height))
    return restorer.restorable(rows[:, :, left : left + side])


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
