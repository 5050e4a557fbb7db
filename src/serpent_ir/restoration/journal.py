"""What has been done in an output folder, so that the same command need not do it again.

The journal is a hidden file of lines of JSON. The first one holds the settings of the run, each further one what became
of a file; a later run appends its own. It is a help only: lines that cannot be read are passed over, and what it says
of a file is believed only while the source and the result are there as it says.
"""

from __future__ import annotations

import io
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from serpent_ir.errors import FileWriteError
from serpent_ir.files import sole_use
from serpent_ir.restoration.outcome import FileOutcome
from serpent_ir.restoration.pipeline import stamp_of
from serpent_ir.restoration.plan import Job

log = logging.getLogger(__name__)

NAME = ".serpent-journal.jsonl"
VERSION = 1
LONGEST_LINE = 1 << 20
"""Bytes; longer ones are read in pieces, which are nothing."""
PATIENCE = 5.0
"""Seconds to wait for the remains of a run that was killed."""

Entry = tuple[int, int, str, int]
"""Size and time of change of the source, the result below the folder, and its size."""


class Journal:
    """What is known of the results in `folder`, and what becomes known.

    settings: all that decides what a result looks like. Entries of runs with other settings count for nothing.
    stamp: the size of a source or result, and a number that changes when it does; None where there is none.
    """

    seconds_between_syncs = 5.0

    def __init__(
        self,
        folder: Any,
        settings: Mapping[str, Any],
        file: io.FileIO | None,
        stamp: Callable[[Any], tuple[int, int] | None] = stamp_of,
    ) -> None:
        self.folder, self.settings, self.file = folder, json.loads(json.dumps(settings, default=str)), file
        self.stamp = stamp
        self.entries: dict[str, Entry] = {}
        self.last_sync = time.monotonic()

    def read(self) -> bool:
        """Take the entries of earlier runs. False, and it is said: the last one had other settings."""
        if self.file is None:
            return True
        self.file.seek(0)
        lines = io.BufferedReader(self.file)
        earlier: Any = None
        while line := lines.readline(LONGEST_LINE):
            fields = parsed(line)
            if "settings" in fields:
                earlier = fields["settings"] if fields.get("journal") == VERSION else {}
                if earlier != self.settings:
                    self.entries.clear()
            elif earlier == self.settings and (entry := entry_of(fields)) is not None:
                self.entries[fields["source"]] = entry
        lines.detach()
        if earlier in (None, self.settings):
            return True
        others = earlier if isinstance(earlier, dict) else {}
        changed = sorted(name for name in {*others, *self.settings} if others.get(name) != self.settings.get(name))
        log.warning("%s holds results of another %s; all are made anew", self.folder, ", ".join(changed))
        return False

    def begin(self, anew: bool) -> None:
        """The line that a run begins with. anew: after it, nothing of earlier runs is left."""
        if self.file is not None and anew:
            self.entries.clear()
            self.file.truncate(0)
        self.write({"journal": VERSION, "settings": self.settings})

    @contextmanager
    def in_use(self, again: bool) -> Iterator[Journal]:
        """Within the block, this run's outcomes are recorded. again: believe nothing of what earlier ones wrote."""
        self.begin(again or not self.read())
        try:
            yield self
        finally:
            self.sync()

    def has(self, job: Job[Any]) -> bool:
        """Whether the result is there, made of the source as it is now."""
        entry = self.entries.get(job.name)
        if entry is None or self.stamp(job.source) != entry[:2]:
            return False
        target = self.stamp(job.target)
        return target is not None and (self.name_of(job), target[0]) == entry[2:]

    def record(self, outcome: FileOutcome[Any]) -> None:
        size, changed = outcome.stamp or (0, 0)
        line = {"source": outcome.job.name, "size": size, "mtime_ns": changed, "output": self.name_of(outcome.job)}
        if outcome.status == "done":
            self.write({**line, "output_size": outcome.written, "status": "done"})
        else:
            self.write({**line, "status": outcome.status, "reason": outcome.reason})

    def name_of(self, job: Job[Any]) -> str:
        return job.target.relative_to(self.folder).as_posix()

    def write(self, line: Mapping[str, Any]) -> None:
        """In one stroke, behind a line break, since the line before may have been cut off."""
        if self.file is None:
            return
        content = f"\n{json.dumps(line)}\n".encode()
        with self.as_long_as_it_can_be_written():
            if self.file.write(content) != len(content):
                raise OSError("the file system is full")
        if time.monotonic() > self.last_sync + self.seconds_between_syncs:
            self.sync()

    def sync(self) -> None:
        """Have what was written on the disk."""
        if self.file is not None:
            with self.as_long_as_it_can_be_written():
                os.fsync(self.file.fileno())
            self.last_sync = time.monotonic()

    @contextmanager
    def as_long_as_it_can_be_written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.file = None
            log.warning("%s cannot be written (%s): this run cannot be continued later", self.folder / NAME, error)


def parsed(line: bytes) -> dict[str, Any]:
    """The object in a line, empty where there is none."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def entry_of(fields: Mapping[str, Any]) -> Entry | None:
    """What a line says of a file that was done; None where it says nothing of the kind."""
    entry = tuple(fields.get(name) for name in ("size", "mtime_ns", "output", "output_size"))
    fits = isinstance(fields.get("source"), str) and tuple(map(type, entry)) == (int, int, str, int)
    return entry if fits and fields.get("status") == "done" else None  # type: ignore[return-value]


@contextmanager
def journal_of(
    folder: Path,
    settings: Mapping[str, Any],
    again: bool = False,
    stamp: Callable[[Any], tuple[int, int] | None] = stamp_of,
) -> Iterator[Journal]:
    """The journal of an output folder, which is made. Within the block nobody else has it.

    stamp: see `Journal`. again: believe nothing of what it says. Where it cannot be used, a warning says so, and
    nothing is recorded.

    Raises FileWriteError when the folder cannot be made, or another run writes into it.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileWriteError(f"{folder} cannot be made ({error.strerror})", "a folder for the results") from error
    with ExitStack() as stack:
        file = None
        try:
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise OSError("it is no ordinary file")
            stack.enter_context(sole_use(path, PATIENCE))  # the journal is its own lock
            file = stack.enter_context(io.FileIO(path, "a+"))
        except TimeoutError as error:
            raise FileWriteError(f"another run writes into {folder}", "a folder of its own for each run") from error
        except OSError as error:
            log.warning("%s cannot be used (%s): this run cannot be continued later", path, error)
        yield stack.enter_context(Journal(folder, settings, file, stamp).in_use(again))
