"""Many files through a transform in one process: reading, computing and writing at the same time.

Threads read ahead and write behind; the thread that calls computes, so that Ctrl-C reaches it there. How much is read
ahead, and how much waits to be written, is bounded in pictures and in pixels.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import TypeAlias

from serpent_ir.errors import ImageReadError, ImageWriteError, RestorationError
from serpent_ir.images import OutputOptions, Picture, decode_picture, read_content
from serpent_ir.images.large import size_of_file
from serpent_ir.restoration.one import LargeTransform, Transform, goes_by_rows, transformed, write_target
from serpent_ir.restoration.outcome import FileOutcome
from serpent_ir.restoration.plan import Job

FILE_ERRORS = (ImageReadError, ImageWriteError, RestorationError)
"""What may be wrong with one file; anything else ends the run."""

PIXELS = 50_000_000
"""So many pixels, of 12 bytes, are read ahead at most, and as many wait to be written; or one larger picture."""

Jobs: TypeAlias = "SimpleQueue[Job | None]"
"""None stands behind the last."""


@dataclass(frozen=True)
class Flow:
    """How files go through a pipeline.

    batch: how many pictures of equal size are computed at once, where so many wait. threads: for reading, and as many
    for writing. pixels: see PIXELS.
    """

    options: OutputOptions
    batch: int = 1
    threads: int = 1
    pixels: int = PIXELS

    @property
    def ahead(self) -> int:
        """How many pictures are being read, wait, or are being computed at a time; as many may wait to be written."""
        return 2 * self.batch + self.threads


@dataclass(frozen=True, eq=False)
class Step:
    """A picture on its way, first as it was read, then as it is to be written, and what is known of its file.

    picture: None where it goes by rows, from file to file.
    """

    picture: Picture | None
    outcome: FileOutcome

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the source."""
        return self.outcome.height, self.outcome.width

    @property
    def pixels(self) -> int:
        """Of the picture, or of the source that goes by rows."""
        height, width = self.size if self.picture is None else (self.picture.height, self.picture.width)
        return height * width


class Room:
    """Holds so many pictures of so many pixels together, or a single larger one. Who asks first enters first."""

    def __init__(self, pictures: int, pixels: int) -> None:
        self.most_pictures, self.most_pixels = pictures, pixels
        self.pictures = self.pixels = 0
        self.closed = False
        self.turn, self.changed = threading.Lock(), threading.Condition()

    def enter(self, pixels: int) -> None:
        """Wait until there is room, or until the room is closed."""

        def may_enter() -> bool:
            fits = self.pictures < self.most_pictures and self.pixels + pixels <= self.most_pixels
            return fits or self.pictures == 0 or self.closed

        with self.turn, self.changed:
            self.changed.wait_for(may_enter)
            self.pictures += 1
            self.pixels += pixels

    def leave(self, pixels: int) -> None:
        with self.changed:
            self.pictures -= 1
            self.pixels -= pixels
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()


class Pipeline:
    """Applies `transform` to the files of `jobs` and tells `report` what became of each, when it did.

    report: called from any thread, from one at a time. A file for which ImageReadError, ImageWriteError or
    RestorationError is raised (too little memory included) is left out, with the reason; any other error, in any
    thread, ends the run and is raised by `run`. Then, as after Ctrl-C, pictures that were computed are still written.
    The threads are gone when `run` ends.
    """

    def __init__(self, transform: Transform, flow: Flow, jobs: Jobs, report: Callable[[FileOutcome], None]) -> None:
        self.transform, self.flow, self.jobs = transform, flow, jobs
        self.tell, self.telling = report, threading.Lock()
        self.read_ahead, self.written_behind = (Room(flow.ahead, flow.pixels) for _ in range(2))
        self.pictures: SimpleQueue[Step | BaseException | None] = SimpleQueue()  # a thread's error too; None: it ended
        self.results: SimpleQueue[Step | None] = SimpleQueue()
        self.stopped = threading.Event()

    def run(self) -> None:
        readers = [threading.Thread(target=self.guarded, args=(self.read_all,)) for _ in range(self.flow.threads)]
        writers = [threading.Thread(target=self.guarded, args=(self.write_all,)) for _ in range(self.flow.threads)]
        try:
            for thread in (*readers, *writers):
                thread.start()
            self.compute_all(len(readers))
            self.results.put(None)
            self.wait_for(len(writers))
        finally:
            self.stopped.set()
            self.jobs.put(None)
            self.results.put(None)
            self.read_ahead.close()
            self.written_behind.close()
            for thread in (*readers, *writers):
                if thread.ident is not None:
                    thread.join()

    def guarded(self, work: Callable[[], None]) -> None:
        """A thread's work; how it ended is found among the pictures, and nobody waits for what it will not do."""
        try:
            work()
            self.pictures.put(None)
        except BaseException as error:
            self.pictures.put(error)
            self.read_ahead.close()
            self.written_behind.close()

    def report(self, outcome: FileOutcome) -> None:
        with self.telling:
            self.tell(outcome)

    # -- the threads that read ------------------------------------------------------------------------------------

    def read_all(self) -> None:
        while (job := self.jobs.get()) is not None and not self.stopped.is_set():
            self.read(job)
        self.jobs.put(None)  # for the other threads

    def read(self, job: Job) -> None:
        start = time.perf_counter()
        outcome = FileOutcome(job, "failed", stamp=stamp_of(job.source))
        try:
            height, width = size_of_file(job.source)
            header_read = time.perf_counter()
            self.read_ahead.enter(height * width)
            start += time.perf_counter() - header_read  # waiting is not reading
            if self.stopped.is_set():
                return
            try:
                large = goes_by_rows(self.transform, height, width)
                picture = None if large else decode_picture(read_content(job.source), str(job.source))
            except BaseException:
                self.read_ahead.leave(height * width)
                raise
        except FILE_ERRORS as error:
            seconds = replace(outcome.seconds, read=time.perf_counter() - start)
            self.report(replace(outcome, reason=str(error), seconds=seconds))
            return
        seconds = replace(outcome.seconds, read=time.perf_counter() - start)
        self.pictures.put(Step(picture, replace(outcome, width=width, height=height, seconds=seconds)))

    # -- the thread that computes ---------------------------------------------------------------------------------

    def compute_all(self, readers: int) -> None:
        waiting: deque[Step] = deque()
        while True:
            while readers and (not waiting or not self.pictures.empty()):
                step = self.pictures.get()
                if isinstance(step, BaseException):
                    raise step
                if step is None:
                    readers -= 1
                else:
                    waiting.append(step)
            if not waiting:
                return
            if waiting[0].picture is None:
                self.compute_by_rows(waiting.popleft())
                continue
            group = [step for step in waiting if step.size == waiting[0].size][: self.flow.batch]
            for step in group:
                waiting.remove(step)
            self.compute(group)

    def compute_by_rows(self, step: Step) -> None:
        start = time.perf_counter()
        outcome = step.outcome
        assert isinstance(self.transform, LargeTransform)
        try:
            notes = self.transform.by_rows(outcome.source, outcome.target, self.flow.options)
        except FILE_ERRORS as error:
            outcome = replace(outcome, reason=str(error))
        else:
            outcome = replace(outcome, status="done", notes=notes, written=outcome.target.stat().st_size)
        self.read_ahead.leave(step.pixels)
        self.report(replace(outcome, seconds=replace(outcome.seconds, compute=time.perf_counter() - start)))

    def compute(self, group: list[Step]) -> None:
        """Steps of equal size as one batch; where that fails, for one of them or for memory, each alone."""
        start = time.perf_counter()
        names = [step.outcome.job.name for step in group]
        try:
            results = transformed(self.transform, [step.picture for step in group if step.picture is not None], names)
        except FILE_ERRORS as error:
            if len(group) > 1:
                for step in group:
                    self.compute([step])
            else:
                self.read_ahead.leave(group[0].pixels)
                seconds = replace(group[0].outcome.seconds, compute=time.perf_counter() - start)
                self.report(replace(group[0].outcome, reason=str(error), seconds=seconds))
            return
        share = (time.perf_counter() - start) / len(group)
        for step, result in zip(group, results, strict=True):
            self.read_ahead.leave(step.pixels)
            outcome = step.outcome
            seconds = replace(outcome.seconds, compute=share)
            done = Step(result, replace(outcome, notes=result.notes, seconds=seconds))
            self.written_behind.enter(done.pixels)
            self.results.put(done)

    # -- the threads that write -----------------------------------------------------------------------------------

    def write_all(self) -> None:
        while (step := self.results.get()) is not None:
            self.write(step)
        self.results.put(None)

    def write(self, step: Step) -> None:
        start = time.perf_counter()
        outcome = step.outcome
        assert step.picture is not None
        try:
            written = write_target(step.picture, outcome.target, self.flow.options, alone=True)
        except FILE_ERRORS as error:
            outcome = replace(outcome, reason=str(error))
        else:
            outcome = replace(outcome, status="done", written=written)
        self.written_behind.leave(step.pixels)
        self.report(replace(outcome, seconds=replace(outcome.seconds, write=time.perf_counter() - start)))

    def wait_for(self, writers: int) -> None:
        while writers:
            ended = self.pictures.get()
            if isinstance(ended, BaseException):
                raise ended
            writers -= 1


def stamp_of(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of the last change in nanoseconds; None where there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
