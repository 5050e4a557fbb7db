"""Many files through a transform in several processes, each with a pipeline of its own.

A process may die of one file: of a defect in a decoder, or because the system took its memory. Which of the files that
it had in hand is not known, so all of them are done again in the end, when the other processes are gone, one at a time.
A file whose process dies then, too, is left out.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue

import pyvips
import torch

from serpent_ir.efficiency.memory import end_with_parent
from serpent_ir.errors import RestorationError, SerpentError
from serpent_ir.files import leftover_name
from serpent_ir.restoration.one import Transform
from serpent_ir.restoration.outcome import FileOutcome
from serpent_ir.restoration.pipeline import Flow, Jobs, Pipeline
from serpent_ir.restoration.plan import Job

PATIENCE = 10.0
"""Seconds that processes get to finish what they are writing, before they are killed."""

READY = "ready"

ENDS = {-signal.SIGKILL: "killed by the system, most often for lack of memory"}
"""Of a process, in words."""


@dataclass(frozen=True)
class Defect:
    """An error of this program in a worker: itself if it is one of ours, which can be sent, and how it came."""

    error: SerpentError | None
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Defect:
        """Of an error that is being handled."""
        return cls(error if isinstance(error, SerpentError) else None, traceback.format_exc())

    def as_error(self) -> Exception:
        """To be raised in the main process."""
        return self.error or RuntimeError(f"in a worker process:\n{self.traceback}")


# -- in the worker -------------------------------------------------------------------------------------------------


def work(connection: Connection, transform: Transform, flow: Flow, threads: int) -> None:
    """What a worker does: jobs come through `connection`, None behind the last; READY, outcomes and a Defect go back.

    It computes with `threads` threads. SIGTERM stops it as Ctrl-C does a pipeline; it ends when the parent ends.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end_with_parent()
    torch.set_num_threads(threads)
    pyvips.vips_lib.vips_concurrency_set(threads)
    jobs: Jobs = SimpleQueue()
    threading.Thread(target=receive, args=(connection, jobs), daemon=True).start()
    try:
        connection.send(READY)
        Pipeline(transform, flow, jobs, connection.send).run()
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # the parent is gone
        pass
    except BaseException as error:
        connection.send(Defect.of(error))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def receive(connection: Connection, jobs: Jobs) -> None:
    """Jobs from the parent. When it is gone this process ends, also where `end_with_parent` does nothing."""
    try:
        while (job := connection.recv()) is not None:
            jobs.put(job)
        jobs.put(None)
    except (EOFError, OSError):
        os._exit(1)


# -- in the main process -------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Worker:
    """A process, what it has in hand, and how to reach it."""

    process: BaseProcess
    connection: Connection
    in_hand: dict[str, Job] = field(default_factory=dict)
    ready: bool = False
    dismissed: bool = False

    def feed(self, pending: deque[Job], ahead: int) -> None:
        """Hand over jobs until it has `ahead` of them; when there are no more, tell it to end."""
        with suppress(BrokenPipeError, ConnectionResetError):  # it died, which is found out elsewhere
            while pending and len(self.in_hand) < ahead:
                job = pending.popleft()
                self.in_hand[job.name] = job
                self.connection.send(job)
            if not pending and not self.in_hand and not self.dismissed:
                self.connection.send(None)
                self.dismissed = True

    def bury(self) -> str:
        """Wait for its end, remove what it left half written, and say how it ended."""
        self.process.join()
        self.connection.close()
        for job in self.in_hand.values():
            leftover_name(job.target).unlink(missing_ok=True)
        code = self.process.exitcode or 0
        return ENDS.get(code) or (f"exit status {code}" if code >= 0 else signal.Signals(-code).name)


class Crew:
    """Processes that work off lists of jobs. Ends with all of them gone.

    Raises RestorationError when the transform cannot be sent to another process, for lack of shared memory too, or
    processes do not even begin.
    """

    def __init__(self, transform: Transform, flow: Flow, threads: int, report: Callable[[FileOutcome], None]) -> None:
        self.transform, self.flow, self.threads, self.report = transform, flow, threads, report
        self.workers: list[Worker] = []

    def work_off(self, jobs: Iterable[Job], count: int, ahead: int, on_death: Callable[[Job, str], None]) -> None:
        """Have `jobs` done by `count` processes. on_death: called for what a process that died had in hand, and why."""
        pending = deque(jobs)
        try:
            for _ in range(min(count, len(pending))):
                self.workers.append(self.hire())
            while self.workers:
                for connection in wait([worker.connection for worker in self.workers]):
                    worker = next(worker for worker in self.workers if worker.connection is connection)
                    if self.listen(worker):
                        worker.feed(pending, ahead)
                    else:
                        self.replace(worker, pending, on_death)
        finally:
            self.dismiss()

    def listen(self, worker: Worker) -> bool:
        """Take a message; False: there will be none any more."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return False
        if isinstance(message, Defect):
            raise message.as_error()
        if isinstance(message, FileOutcome):
            del worker.in_hand[message.job.name]
            self.report(message)
        worker.ready = True
        return True

    def replace(self, worker: Worker, pending: deque[Job], on_death: Callable[[Job, str], None]) -> None:
        """Take leave of a worker that ended, and have another one, unless it did not even begin."""
        self.workers.remove(worker)
        end = worker.bury()
        for job in worker.in_hand.values():
            on_death(job, end)
        if worker.ready and pending:
            self.workers.append(self.hire())
        elif pending and not self.workers:
            raise RestorationError(
                f"a worker process ended before it began ({end})", "one that can load the model", "Take 1 worker."
            )

    def hire(self) -> Worker:
        try:
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(target=work, args=(theirs, self.transform, self.flow, self.threads), daemon=True)
            with without_interrupts():
                process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise RestorationError(
                f"the model cannot be sent to a worker process ({error})",
                "a module whose class other processes can import",
                "Take 1 worker.",
            ) from error
        except (OSError, RuntimeError) as error:  # torch names neither the kind nor the place of what is missing
            raise RestorationError(
                f"a worker process cannot be started ({error})",
                "a process more, and shared memory (/dev/shm) for the model's parameters",
                "Take 1 worker, or allow more shared memory (docker run --shm-size).",
            ) from error
        theirs.close()
        return Worker(process, ours)

    def dismiss(self) -> None:
        """End the processes that are there; what they finish on the way is reported."""
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join(PATIENCE)
            worker.process.kill()
            with suppress(EOFError, OSError):
                while True:
                    message = worker.connection.recv()
                    if isinstance(message, FileOutcome):
                        del worker.in_hand[message.job.name]
                        self.report(message)
            worker.bury()
        self.workers.clear()


CONTEXT = multiprocessing.get_context("spawn")
"""A process that was forked after libvips or torch ran threads does not work."""


def run_workers(
    jobs: Iterable[Job],
    transform: Transform,
    flow: Flow,
    workers: int,
    threads: int,
    report: Callable[[FileOutcome], None],
) -> None:
    """Have `jobs` done by `workers` processes that compute with `threads` threads each.

    report: called with each outcome, by this thread. Parameters of a model in `transform` move into memory that all
    processes share. Raises what `Crew` raises, and what ends a pipeline.
    """
    again: list[Job] = []
    crew = Crew(transform, flow, threads, report)
    crew.work_off(jobs, workers, flow.ahead + flow.threads, lambda job, end: again.append(job))

    def give_up(job: Job, end: str) -> None:
        reason = f"{job.source}: the process that worked on it died ({end}), twice"
        report(FileOutcome(job, "failed", reason=reason))

    crew.work_off(again, 1, 1, give_up)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Ctrl-C waits for the end of the block. Processes begun in it never get it: it is for the main process."""
    resource_tracker.ensure_running()  # by multiprocessing, when it is first needed; it lets SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
