"""Image files that do not fit into memory: from file to file, some rows at a time, to be continued after any stop."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from serpent_ir import __version__
from serpent_ir.errors import ImageReadError, ImageWriteError, RestorationError, SerpentError, out_of_memory_as
from serpent_ir.files import leftover_name, replacing, sole_use
from serpent_ir.images import OutputOptions
from serpent_ir.images.large import PictureReader, PictureWriter
from serpent_ir.images.write import named_writing, without_alpha
from serpent_ir.restoration.evaluation import Evaluation
from serpent_ir.restoration.pixels import planes_of
from serpent_ir.restoration.rows import EnlargedRows, MappedRows
from serpent_ir.restoration.seams import LARGEST_SIDE

if TYPE_CHECKING:
    from serpent_ir.restoration.restorer import Restorer

TASK, PROGRESS, SAMPLES, MAPS, LOCK = "task.json", "progress.json", "samples", "maps", "lock"
PATIENCE = 5.0
"""Seconds to wait for the remains of a run that was killed."""
ROWS_TO_LOOK_AT = 64


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
    source has the same size and date, and version, options and `settings` (anything JSON takes, that decides the
    result) are the same. on_stage: is told how far it is, and of how much. The folder is gone at the end, and when the
    reason of an error lies in source or model, so that another try would fail as well.

    Raises ImageReadError, also when the source is changed meanwhile, ImageWriteError, RestorationError; the last one
    for an ensemble, which needs the whole image, and when another process restores the same file.
    """
    if restorer.ensemble:
        raise RestorationError(
            f"{source} is too large for an ensemble in the memory there is", "an image that fits", "Leave it out."
        )
    folder = parts_of(target)
    with PictureReader(source) as reader, out_of_memory_as(RestorationError, f"{source}: there is not enough memory"):
        work = Work(restorer, reader, source, target, folder, options)
        task = {
            "version": __version__,
            "source": [os.path.realpath(source), *reader.stamp()],
            "output": asdict(options or OutputOptions()),
            "settings": settings,
            "way": work.evaluation.way,
        }
        try:
            with locked(folder):
                prepare(folder, json.loads(json.dumps(task)))
                try:
                    work.run(on_stage)
                except (ImageReadError, RestorationError) as error:
                    if not isinstance(error.__cause__, OSError):  # else another try may go on
                        remove(folder)
                    raise
                remove(folder)
        except TimeoutError as error:
            raise RestorationError(f"{target} is being made by another process", "one at a time") from error
        except SerpentError:
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise ImageWriteError(f"{folder} cannot be used ({reason})", "a folder to work in") from error
        return *reader.notes(), *work.notes()


def parts_of(target: Path) -> Path:
    """The hidden folder for what is to become the file `target`."""
    return leftover_name(target).with_suffix(".parts")


def discard_parts(target: Path) -> None:
    """Remove what was begun by rows of a file that was then made in another way, unless somebody is at it."""
    folder = parts_of(target)
    if folder.exists():
        with suppress(OSError), locked(folder, patience=0):
            shutil.rmtree(folder)


@contextmanager
def locked(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Within the block, `folder` is there, belongs to this user, and nobody else is in such a block.

    Raises ImageWriteError when it is another's, or a link; TimeoutError, OSError.
    """
    with ExitStack() as stack:
        while True:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                raise ImageWriteError(f"{folder} is a link, or belongs to somebody else", "a folder of our own")
            try:
                stack.enter_context(sole_use(folder / LOCK, patience))
                break
            except FileNotFoundError:  # whoever was there has just removed it
                continue
        yield


def prepare(folder: Path, task: object) -> None:
    """Leave in the folder what belongs to the same task, if anything."""
    try:
        same = json.loads((folder / TASK).read_text(encoding="utf-8")) == task
    except (OSError, ValueError):
        same = False
    if not same:
        for name in (TASK, PROGRESS, SAMPLES):
            (folder / name).unlink(missing_ok=True)
        if (folder / MAPS).exists():
            shutil.rmtree(folder / MAPS)
        write_json(folder / TASK, task)


def remove(folder: Path) -> None:
    """Remove the folder; where that is stopped in between, the next run begins anew."""
    (folder / TASK).unlink()
    shutil.rmtree(folder)


class Work:
    """One file on its way.

    Raises what is wrong with source or target before anything is written.
    """

    def __init__(
        self,
        restorer: Restorer,
        reader: PictureReader,
        source: Path,
        target: Path,
        folder: Path,
        options: OutputOptions | None,
    ) -> None:
        self._restorer, self._reader, self._source, self._folder = restorer, reader, source, folder
        self._planes = planes = Planes(reader)
        restorer.check_picture(planes.first, str(source))
        factor = restorer.enlarge * restorer.upscale
        self._before = EnlargedRows(MappedRows(planes, restorer.restorable, restorer.channels), restorer.enlarge)
        self._after = EnlargedRows(self._before, restorer.upscale)
        self._beyond = EnlargedRows(MappedRows(planes, restorer.beyond, 3), factor)
        self._alpha = EnlargedRows(MappedRows(planes, lambda rows: rows[3:], 1), factor)
        self._like = planes.first if restorer.channels == 3 else replace(planes.first, alpha=None)
        self._writer = PictureWriter(
            target, folder / SAMPLES, self._after.height, self._after.width, self._like, options
        )
        if planes.channels == 4 and restorer.channels == 3 and not self._writer.keeps_alpha:
            self._check_opaque(target)
        self._computed_again = restorer.computed_again
        self.evaluation = restorer.planner.choose_by_rows(self._before.height, self._before.width)

    def _check_opaque(self, target: Path) -> None:
        for first in range(0, self._reader.height, ROWS_TO_LOOK_AT):
            with named_writing(target):
                without_alpha(self._reader.read(first, min(first + ROWS_TO_LOOK_AT, self._reader.height)))

    def run(self, on_stage: Callable[[int, int], None] | None) -> None:
        """From where the folder says it is to the end. Raises ImageReadError when the source was changed meanwhile."""
        stamp, restorer, like = self._reader.stamp(), self._restorer, self._like
        progress = Progress(self._folder / PROGRESS, self.evaluation)
        self.evaluation, in_tiles = progress.evaluation, progress.evaluation.way == "tiles"

        def write(first: int, rows: Tensor) -> None:
            end = first + rows.shape[1]
            restored = restorer.finished(rows[None], self._after.read(first, end)[None])[0]
            alpha = None if like.alpha is None else self._alpha.read(first, end).clamp(0, 1)
            self._writer.write(first, replace(like, pixels=restored + self._beyond.read(first, end), alpha=alpha))
            if in_tiles or end == self._after.height:
                self._writer.sync()
            if in_tiles:  # a pass in bands has stages
                progress.note(end)
                if on_stage is not None:
                    on_stage(end, self._after.height)

        restorer.run_in_parts(
            MappedRows(self._before, lambda rows: restorer.seen(rows[None])[0], restorer.channels),
            write,
            self.evaluation,
            self._folder / MAPS,
            begin=progress.rows if in_tiles else 0,
            on_stage=on_stage,
        )
        if self._reader.stamp() != stamp:
            raise ImageReadError(f"{self._source} was changed while it was restored", "a file that stays as it is")
        self._writer.finish()

    def notes(self) -> tuple[str, ...]:
        """What became of it; where `Restorer.report` asks for it, also of the middle of the picture in one piece."""
        notes = self._restorer.notes_since(self._computed_again)
        if not self._restorer.report:
            return notes
        planes, side = self._planes, -(-LARGEST_SIDE // self._restorer.enlarge)
        top, left = max((planes.height - side) // 2, 0), max((planes.width - side) // 2, 0)
        middle = planes.read(top, min(top + side, planes.height))[:, :, left : left + side]
        return *notes, *self._restorer.report_on(self._restorer.restorable(middle), self.evaluation)


class Progress:
    """How the result is made, which stays as it was begun, and how many of its rows are there."""

    def __init__(self, path: Path, evaluation: Evaluation) -> None:
        self._path = path
        self.rows, self.evaluation = 0, evaluation
        try:
            rows, fields = json.loads(path.read_text(encoding="utf-8"))
            self.rows, self.evaluation = int(rows), Evaluation(**fields)
        except (FileNotFoundError, ValueError, TypeError):  # nothing is there, or it is damaged: from the beginning
            self.note(0)

    def note(self, rows: int) -> None:
        self.rows = rows
        write_json(self._path, [rows, asdict(self.evaluation)])


def write_json(path: Path, value: object) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value), encoding="utf-8")
