"""Many files through a restorer on a Ray cluster: the work of batch.py, done by Ray Data on any number of machines.

Each worker reads, restores and writes one file after the other, and only names and outcomes travel. When a worker dies,
Ray starts another and gives it the files that were in hand. A file with which two workers died is left out.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pyvips
import torch

from serpent_ir.errors import DeviceError, RestorationError
from serpent_ir.images import OutputOptions, decode_picture, image_size, read_content
from serpent_ir.images.write import encoded, write_result
from serpent_ir.restoration.batch import decisive_settings, remove_leftovers, run_journaled
from serpent_ir.restoration.journal import journal_of
from serpent_ir.restoration.one import (
    Transform,
    goes_by_rows,
    transform_file,
    transformed,
)
from serpent_ir.restoration.outcome import BatchSummary, FileOutcome, Seconds
from serpent_ir.restoration.pipeline import FILE_ERRORS
from serpent_ir.restoration.plan import Job, Plan
from serpent_ir.restoration.ray_session import ray_session
from serpent_ir.restoration.remote_files import Anywhere, stamps_of
from serpent_ir.restoration.remote_journal import remote_journal_of
from serpent_ir.restoration.restorer import Restorer
from serpent_ir.restoration.workers import Defect

DEATHS = 2
"""Of workers with one file in hand, after which it is left out; also of one that loads the model."""
MOST_BLOCKS = 2000
"""Files that Ray Data knows one by one, at 2 ms each before the work begins; of more, several go together."""
UNREADABLE = re.compile(r"\x1b\[[0-9;]*m|\^{2,}")
"""In what Ray says of errors: colours of a terminal, underlining."""
FILES_IN_HAND = 2
"""Of a worker: the one that it works on, and the next."""


class Portable(Protocol):
    """What can be sent to another machine and makes a restorer there, such as a `PortableRestorer`."""

    def build(self, device: str) -> Restorer: ...


@dataclass(frozen=True)
class Staff:
    """count: workers; each computes on `device` with `threads` threads, and takes `share` of the free memory.

    cpus, gpus: what each asks of the cluster.
    """

    count: int
    device: str
    threads: int
    share: float
    cpus: float
    gpus: int


def run_on_cluster(
    plan: Plan[Anywhere],
    portable: Portable,
    options: OutputOptions | None = None,
    *,
    settings: Mapping[str, Any],
    device: str | None = None,
    workers: int | None = None,
    again: bool = False,
    address: str | None = None,
    on_outcome: Callable[[FileOutcome[Anywhere]], None] | None = None,
) -> BatchSummary[Anywhere]:
    """What `run_batch` does, on a cluster: journal, outcomes, errors and results are the same, a picture at a time.

    portable: sent to the workers. settings: see `run_batch`, of the restorer that `portable` makes. device: None takes
        CUDA where the cluster has GPUs, else CPUs. workers: None: one for each GPU, or core; each that computes with
        CUDA has a GPU of its own. address: see `ray_session`.

    Paths are those of files that all machines of the cluster see. Pictures too large for memory fail unless source and
    result are such files. Raises MissingExtraError, RestorationError when the cluster cannot do the work, DeviceError
    for more workers than GPUs, and what `journal_of` raises; an error of this package's from a worker ends the run.
    """
    options = options or OutputOptions()
    stamp = stamps_of(plan)
    source = os.path.realpath(plan.source) if isinstance(plan.source, Path) else str(plan.source)
    decisive = decisive_settings(settings, source, options)
    journal = (
        journal_of(plan.target, decisive, again, stamp)
        if isinstance(plan.target, Path)
        else remote_journal_of(plan.target, decisive, again, stamp)
    )

    def work(pending: list[Job[Anywhere]], note: Callable[[FileOutcome[Anywhere]], None]) -> None:
        remove_leftovers(targets)
        if not pending:
            return
        waiting = {job.name: (job, stamp(job.source)) for job in pending}
        try:
            with ray_session(address, max(workers or 1, torch.get_num_threads())) as ray:
                staff = staff_of(ray, len(pending), workers, device)
                for outcome in outcomes_of(ray, [absolute(job) for job in pending], portable, options, staff):
                    job, before = waiting[outcome.job.name]
                    reason = outcome.reason and outcome.reason.replace(str(outcome.job.source), str(job.source))
                    note(replace(outcome, job=job, stamp=before, reason=reason))
        finally:
            remove_leftovers(targets)

    targets = [job.target for job in plan.jobs if isinstance(job.target, Path)]
    return run_journaled(plan, journal, work, on_outcome)


def staff_of(ray: Any, jobs: int, workers: int | None, device: str | None) -> Staff:
    """The workers for so many jobs. Raises DeviceError for CUDA where there are no GPUs, or too few."""
    there = ray.cluster_resources()
    cores, gpus = there.get("CPU", 1), int(there.get("GPU", 0))
    device = device or ("cuda" if gpus else "cpu")
    with_gpu = device.startswith("cuda")
    count = min(workers or (gpus if with_gpu else int(cores)), jobs) or 1
    if with_gpu and count > gpus:
        raise DeviceError(f"{count} workers with CUDA on a cluster of {gpus} GPUs", "at most one for each GPU")
    largest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    return Staff(
        count,
        "cuda" if with_gpu else device,
        threads=max(1, int(cores) // count),
        share=1.0 if with_gpu else 1 / max(1, math.ceil(count * largest / cores)),
        cpus=min(1.0, math.floor(1000 * cores / count) / 1000),
        gpus=int(with_gpu),
    )


def outcomes_of(
    ray: Any, jobs: list[Job[Anywhere]], portable: Portable, options: OutputOptions, staff: Staff
) -> Iterator[FileOutcome[Anywhere]]:
    """What became of each job, when it did. Raises RestorationError when the cluster fails."""
    dataset = ray.data.from_items(jobs, override_num_blocks=min(len(jobs), MOST_BLOCKS)).map(
        Station,
        fn_constructor_args=(portable, options, staff, attempts_on(ray)),
        compute=ray.data.ActorPoolStrategy(size=staff.count, max_tasks_in_flight_per_actor=FILES_IN_HAND),
        num_cpus=staff.cpus,
        num_gpus=staff.gpus,
    )
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    dataset.context.execution_no_progress_timeout_s = -1  # a picture may take as long as it takes
    try:
        for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
            for message in batch["item"]:
                if isinstance(message, Defect):
                    raise message.as_error()
                yield message
    except ray.exceptions.RayError as error:
        reason = " ".join(UNREADABLE.sub("", str(error)).split())
        raise RestorationError(f"the cluster failed ({reason[:500]})") from error


def attempts_on(ray: Any) -> Any:
    """A count, somewhere on the cluster, of how often work was begun and not ended: of the deaths of workers."""

    class Attempts:  # defined here so that its process need not import what this file does
        def __init__(self) -> None:
            self.begun: dict[str, int] = {}

        def begin(self, name: str) -> int:
            self.begun[name] = self.begun.get(name, 0) + 1
            return self.begun[name]

        def end(self, name: str) -> None:
            self.begun.pop(name, None)

    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()


def absolute(job: Job[Anywhere]) -> Job[Anywhere]:
    """The job as processes with another current folder see it."""

    def place(one: Anywhere) -> Anywhere:
        return Path(os.path.abspath(one)) if isinstance(one, Path) else one

    return Job(place(job.source), place(job.target), job.name)


# -- in the workers ------------------------------------------------------------------------------------------------


class Station:
    """One worker: a restorer, and what it does with jobs. No error leaves it but as a `Defect`."""

    def __init__(self, portable: Portable, options: OutputOptions, staff: Staff, attempts: Any) -> None:
        import ray

        self.options, self.attempts, self.get = options, attempts, ray.get
        self.defect: Defect | None = None
        own = f"worker {ray.get_runtime_context().get_actor_id()}"
        try:
            if self.begin(own) > DEATHS:
                raise RestorationError(
                    f"a worker died {DEATHS} times while it loaded the model", "enough memory for it"
                )
            torch.set_num_threads(staff.threads)
            pyvips.vips_lib.vips_concurrency_set(staff.threads)
            restorer = portable.build(staff.device)
            restorer.planner.share = staff.share
            self.transform = restorer.transform
            self.end(own)
        except Exception as error:
            self.defect = Defect.of(error)

    def begin(self, name: str) -> int:
        return int(self.get(self.attempts.begin.remote(name)))

    def end(self, name: str) -> None:
        self.attempts.end.remote(name)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"item": self.defect or self.outcome_of(row["item"])}

    def outcome_of(self, job: Job[Anywhere]) -> FileOutcome[Anywhere] | Defect:
        try:
            attempt = self.begin(job.name)
            if attempt > DEATHS:
                return FileOutcome(job, "failed", reason=f"{job.source}: the worker that had it in hand died, twice")
            with collected_warnings() as notes:
                outcome = restored(job, self.transform, self.options)
            if attempt > 1:
                notes.append("a worker died while it had this file in hand, and it was done again")
            self.end(job.name)
            return replace(outcome, notes=(*outcome.notes, *notes))
        except Exception as error:
            return Defect.of(error)


def restored(job: Job[Anywhere], transform: Transform, options: OutputOptions) -> FileOutcome[Anywhere]:
    """What became of a job; a file that cannot be read, restored or written is failed."""
    try:
        if isinstance(job.source, Path) and isinstance(job.target, Path):
            return transform_file(Job(job.source, job.target, job.name), transform, options, alone=True)
        return transform_remote(job, transform, options)
    except FILE_ERRORS as error:
        return FileOutcome(job, "failed", reason=str(error))


def transform_remote(job: Job[Anywhere], transform: Transform, options: OutputOptions) -> FileOutcome[Anywhere]:
    """`transform_file` for sources and targets behind URLs."""
    start = time.perf_counter()
    content = read_content(job.source) if isinstance(job.source, Path) else job.source.read()
    height, width = image_size(content, str(job.source))
    if goes_by_rows(transform, height, width):
        raise RestorationError(
            f"{job.source}: {width} x {height} pixels do not fit into memory",
            "source and result that are files, not behind URLs: such pictures go by rows",
            "Copy it to a folder and restore it there.",
        )
    picture = decode_picture(content, str(job.source))
    read = time.perf_counter()
    result = transformed(transform, [picture], [job.name])[0]
    computed = time.perf_counter()
    content = encoded(result, job.target.suffix, options, str(job.target))
    if isinstance(job.target, Path):
        write_result(content, job.target, alone=True)
    else:
        job.target.write(content)
    seconds = Seconds(read - start, computed - read, time.perf_counter() - computed)
    return FileOutcome(job, "done", None, picture.width, picture.height, result.notes, seconds, written=len(content))


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """What this package logs as a warning in the block: on another machine nobody would see it."""
    texts: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("serpent_ir")
    log.addHandler(handler)
    try:
        yield texts
    finally:
        log.removeHandler(handler)
