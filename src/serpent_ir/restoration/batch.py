"""Many files through a transform, so that it can be stopped at any moment and continued."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from serpent_ir.errors import ImageReadError, RangeError
from serpent_ir.files import TEMPORARY_NAMES, leftover_name
from serpent_ir.free_memory import affordable
from serpent_ir.images import OutputOptions
from serpent_ir.images.large import size_of_file
from serpent_ir.restoration.journal import Journal, journal_of
from serpent_ir.restoration.one import Transform
from serpent_ir.restoration.outcome import BatchSummary, FileOutcome
from serpent_ir.restoration.pipeline import PIXELS, Flow, Jobs, Pipeline
from serpent_ir.restoration.plan import Job, Place, Plan

log = logging.getLogger(__name__)

BATCH_ON_ACCELERATORS = 8

SAMPLED = 16
"""Files whose headers are looked at."""
PIXELS_FOR_A_WORKER = 2_000_000
"""What a core restores while another process begins."""
BYTES_PER_PIXEL = 1000
"""What a model takes for a large picture, roughly (docs/results.md)."""
SHARED_MEMORY = Path("/dev/shm")
SHARED_BYTES = 60_000_000
"""What processes are to find there: more than the parameters of Serpent or SwinIR."""


def run_batch(
    plan: Plan,
    transform: Transform,
    options: OutputOptions | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    again: bool = False,
    workers: int = 1,
    batch: int = 1,
    threads: int = 1,
    on_outcome: Callable[[FileOutcome], None] | None = None,
) -> BatchSummary:
    """Apply `transform` to the source of every job of `plan` and write the result to the target.

    settings: what decides the results of `transform`. With it, there is a journal in the target folder: files that an
        earlier run did with equal settings and options are skipped, if source and result are still as they were.
    again: do these too.
    workers: processes; 1: this one. They share the cores. batch: pictures of equal size that are computed at once, if
        so many wait. threads: for reading, and as many for writing, in each process.
    on_outcome: called with what became of a file when it is known, by one thread at a time.

    A file for which ImageReadError, ImageWriteError or RestorationError is raised (too little memory included), or of
    which worker processes die, is left out, with the reason in the summary; the others are not affected. Any other
    error ends the run; so does KeyboardInterrupt. At no time is a target half written. Raises RangeError for numbers
    below 1, and what `journal_of` and `run_workers` raise.
    """
    for name, number in (("workers", workers), ("batch", batch), ("threads", threads)):
        if number < 1:
            raise RangeError(f"{number} {name}", "1 or more")
    options = options or OutputOptions()

    def work(pending: list[Job], note: Callable[[FileOutcome], None]) -> None:
        remove_leftovers(job.target for job in plan.jobs)
        count = min(workers, len(pending))
        flow = Flow(options, batch, threads, PIXELS // max(count, 1))
        if count > 1:
            from serpent_ir.restoration.workers import run_workers

            run_workers(pending, transform, flow, count, max(1, torch.get_num_threads() // count), note)
        else:
            jobs: Jobs = SimpleQueue()
            for job in pending:
                jobs.put(job)
            jobs.put(None)
            Pipeline(transform, flow, jobs, note).run()

    decisive = decisive_settings(settings or {}, os.path.realpath(plan.source), options)
    journal = nullcontext() if settings is None else journal_of(plan.target, decisive, again)
    return run_journaled(plan, journal, work, on_outcome)


def decisive_settings(settings: Mapping[str, Any], source: str, options: OutputOptions) -> dict[str, Any]:
    """All that decides what the results in a folder look like."""
    return {**settings, "source": source, "output": asdict(options)}


def run_journaled(
    plan: Plan[Place],
    journal_context: AbstractContextManager[Journal | None],
    work: Callable[[list[Job[Place]], Callable[[FileOutcome[Place]], None]], None],
    on_outcome: Callable[[FileOutcome[Place]], None] | None,
) -> BatchSummary[Place]:
    """Have `work` do the jobs that the journal does not know as done; it reports each outcome, to one call at a time.

    journal_context: of the target folder; None for a run without a journal.
    """
    start = time.perf_counter()
    outcomes: dict[str, FileOutcome[Place]] = {}
    with journal_context as journal:

        def note(outcome: FileOutcome[Place]) -> None:
            outcomes[outcome.job.name] = outcome
            if journal is not None and outcome.status != "skipped":
                journal.record(outcome)
            if on_outcome is not None:
                on_outcome(outcome)

        pending = []
        for job in plan.jobs:
            if journal is not None and journal.has(job):
                note(FileOutcome(job, "skipped"))
            else:
                pending.append(job)
        work(pending, note)
    in_order = tuple(outcomes[job.name] for job in plan.jobs)
    return BatchSummary(in_order, plan.ignored, time.perf_counter() - start)


def remove_leftovers(targets: Iterable[Path]) -> None:
    """Remove what a run that was killed left half written under the names of `targets`."""
    found: dict[Path, set[Path]] = {}
    for target in targets:
        folder = target.parent
        if folder not in found:
            found[folder] = {*folder.glob(TEMPORARY_NAMES)}
        if found[folder]:
            leftover = leftover_name(target)
            if leftover in found[folder]:
                leftover.unlink(missing_ok=True)


def sensible_workers(plan: Plan, device: torch.device) -> int:
    """How many processes do the work of `plan` soonest: one for each core that torch may use.

    Fewer where there is too little work for them, or where pictures are so large that memory would not suffice, by the
    headers of a few files; 1, with a warning, where there is little shared memory for the parameters. 1 on anything but
    a CPU, whose cores are then free for reading and writing.
    """
    if device.type != "cpu":
        return 1
    cores, sampled = torch.get_num_threads(), plan.jobs[:: max(1, len(plan.jobs) // SAMPLED)]
    if cores == 1:
        return 1
    sizes = []
    for job in sampled:
        try:
            height, width = size_of_file(job.source)
        except ImageReadError:
            continue
        sizes.append(height * width)
    if not sizes:
        return 1
    work = len(plan.jobs) * sum(sizes) // len(sampled)
    memory = affordable()
    by_memory = cores if memory is None else memory // (BYTES_PER_PIXEL * max(sizes))
    workers = max(1, min(cores, len(plan.jobs), work // PIXELS_FOR_A_WORKER, by_memory))
    if workers > 1 and SHARED_MEMORY.exists() and (free := shutil.disk_usage(SHARED_MEMORY).free) < SHARED_BYTES:
        log.warning("%s has %d MB free, too little for %d processes; one does all", SHARED_MEMORY, free // 1e6, workers)
        return 1
    return workers


def sensible_batch(device: torch.device) -> int:
    """How many pictures of equal size are computed at once by default."""
    return 1 if device.type == "cpu" else BATCH_ON_ACCELERATORS


def sensible_threads(device: torch.device) -> int:
    """Threads for reading, and for writing: where the cores do not compute, more."""
    return 1 if device.type == "cpu" else max(1, min(4, torch.get_num_threads() // 2))
