"""Measuring many cells: cheapest first, kept in a file after each, continued where it stopped."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from serpent_ir.efficiency.cell import BEYOND_A_LIMIT, MINIMUM_RUNS, Cell, Settings, Status, can_bound_memory, create
from serpent_ir.efficiency.cost import count_gmac, count_parameters
from serpent_ir.efficiency.process import KILLED, run_in_process
from serpent_ir.efficiency.record import Profile, Result, read_profile
from serpent_ir.errors import DataError, RangeError
from serpent_ir.machine import describe_machine
from serpent_ir.ops.backends import choose

# What must be the same for results to stand in one file.
CONDITIONS = ("processor", "cores", "torch_threads", "accelerator")
VERSIONS = ("torch", "serpent-ir")

START_UP = 4.0
"""Seconds until a process has loaded torch and built its model, about."""

Runner = Callable[[Cell, Settings], dict[str, Any]]
OnStart = Callable[[Cell, int, int, float | None], None]
OnResult = Callable[[Result], None]


@functools.cache
def cost(model: str, height: int, width: int) -> tuple[int, float]:
    """Parameters, and GMAC of a forward pass of one image; nothing is computed."""
    on_meta = create(model, "meta")
    return count_parameters(on_meta), count_gmac(on_meta, height, width)


def stands(result: Result, settings: Settings) -> bool:
    """Whether a result need not be had again: measured, or beyond a limit that is the same now, or lower."""
    if result.status == Status.MEASURED:
        return True
    if result.status not in BEYOND_A_LIMIT or result.reason == KILLED:
        return False
    then, now = result.limit, settings.limit(result.status)
    return now == then or (now is not None and then is not None and now < then)


def too_large(cell: Cell, results: Iterable[Result]) -> str | None:
    """Why the cell need not be tried: a smaller size, otherwise the same, was beyond a limit. None: try it."""
    beyond = [
        result
        for result in results
        if result.status in BEYOND_A_LIMIT and result.cell.series == cell.series and result.cell.pixels < cell.pixels
    ]
    if not beyond:
        return None
    smallest = min(beyond, key=lambda result: result.cell.pixels)
    return f"{'did not fit' if smallest.status == Status.OUT_OF_MEMORY else 'took too long'} at {smallest.cell.size}"


def cell_seconds(pass_seconds: float, settings: Settings) -> float:
    """How long a cell takes when a pass takes `pass_seconds`: starting, one for memory, and those that are timed."""
    fewest, most = (runs * pass_seconds for runs in (min(MINIMUM_RUNS, settings.runs), settings.runs))
    expected = START_UP + pass_seconds + max(fewest, min(settings.seconds, most))
    return expected if settings.time_limit is None else min(expected, settings.time_limit)


def seconds_left(todo: Sequence[Result], results: Iterable[Result], settings: Settings) -> float | None:
    """The seconds that the cells of `todo` may take, from what those in `results` took; None when nothing tells.

    A pass is expected to take as long per GMAC as the nearest measured one: in the same mode on the same device, if
    possible of the same model, then in the same precision, then of the most similar work.
    """
    results = list(results)
    total = 0.0
    for counted in todo:
        if too_large(counted.cell, results):
            continue
        distances = [
            (
                result.cell.model != counted.cell.model,
                result.cell.precision != counted.cell.precision,
                abs(math.log(result.work / counted.work)),
                result.seconds["median"] / result.work,
            )
            for result in results
            if result.seconds is not None
            and (result.cell.mode, result.cell.device) == (counted.cell.mode, counted.cell.device)
        ]
        if not distances:
            return None
        *_, seconds_per_gmac = min(distances)
        total += cell_seconds(seconds_per_gmac * counted.work, settings)
    return total


def conditions(machine: dict[str, Any]) -> dict[str, Any]:
    """Of what `describe_machine` tells, that which decides time and memory."""
    versions = machine.get("versions", {})
    return {**{name: machine.get(name) for name in CONDITIONS}, **{name: versions.get(name) for name in VERSIONS}}


def differences(before: Profile, machine: dict[str, Any], devices: Iterable[str]) -> list[str]:
    """What is not as it was when `before` was measured, in words: machine, versions, and what runs the scan."""
    there, here = conditions(before.machine), conditions(machine)
    for device in devices:
        results = [result for result in before.results.values() if result.cell.device == device]
        backends = {result.scan_backend for result in results if result.scan_backend}
        if backends:
            name = f"scan on {device}"
            there[name], here[name] = ", ".join(sorted(backends)), choose(torch.device(device)).backend
    return [f"{name} {there[name]} there, {here[name]} here" for name in there if there[name] != here[name]]


def continued(path: Path, start: Profile, devices: Iterable[str] | None) -> Profile:
    """`start` with the results of the file at `path`, if there is one.

    devices: where more will be measured. None: nowhere, and a file with results of any machine is taken as it is.

    Raises DataError when the file is no profile, or was measured under other conditions (counting has none).
    """
    if not path.exists():
        return start
    before = read_profile(path)
    if all(result.status == Status.COUNTED for result in before.results.values()):
        return replace(start, results=before.results)
    if devices is None:
        return before
    found = differences(before, start.machine, devices)
    if found:
        raise DataError(
            f"{path} was measured under other conditions: {'; '.join(found)}",
            remedy="Give another --out, or replace the file with --fresh.",
        )
    return replace(start, results=before.results)


def run_profile(
    cells: Iterable[Cell],
    path: Path,
    settings: Settings,
    *,
    count_only: bool = False,
    fresh: bool = False,
    on_start: OnStart | None = None,
    on_result: OnResult | None = None,
    runner: Runner = run_in_process,
) -> Profile:
    """Measure `cells` into the file at `path`, which holds everything after each of them, and return what it holds.

    What the file has is kept. Of `cells`, those that were measured are not measured again, those that were beyond a
    limit only when it is another and not lower now, those that failed or were killed always. A cell is not run when a
    smaller size of it did not fit in memory or in the time limit.

    Args:
        count_only: parameters and GMAC alone, nothing is run; the file may be of another machine, which it keeps.
        fresh: forget what the file has.
        on_start: called before each cell with it, its index and the number of cells to do now, and the seconds that
            all of them may still take (None: nothing tells).
        on_result: called after each cell.
        runner: measures a cell, in a process of its own unless told otherwise.

    Raises:
        UnknownNameError, RangeError: a model that does not exist, or a limit of memory where it cannot be bounded;
            nothing was measured.
        BackendError: the backend asked for cannot run on a device.
        DataError: the file is no profile, or one of another machine, other versions, another number of threads or
            another backend of the scan.
        FileWriteError: the file cannot be written.
    """
    costs = {cell: cost(cell.model, cell.height, cell.width) for cell in cells}
    devices = sorted({cell.device for cell in costs})
    for device in devices:
        if not (count_only or settings.memory_limit is None or can_bound_memory(torch.device(device))):
            raise RangeError(f"--memory-limit on {device}", "none: memory can be bounded on Linux and CUDA alone")
    profile = Profile({**describe_machine(), "torch_threads": settings.threads}, settings, {})
    if not fresh:
        profile = continued(path, profile, None if count_only else devices)
    standing = {cell: result for cell, result in profile.results.items() if stands(result, settings)}
    done = profile.results if count_only else standing
    todo = [Result(cell, *counts, Status.COUNTED) for cell, counts in costs.items() if cell not in done]
    todo.sort(key=lambda counted: counted.work)
    profile.write(path)
    for index, counted in enumerate(todo):
        cell = counted.cell
        if on_start:
            on_start(cell, index, len(todo), seconds_left(todo[index:], standing.values(), settings))
        if count_only:
            result = counted
        elif reason := too_large(cell, standing.values()):
            result = replace(counted, status=Status.NOT_RUN, reason=reason)
        else:
            answer = runner(cell, settings)
            result = replace(counted, **answer, limit=settings.limit(answer["status"]))
        profile.results[cell] = standing[cell] = result
        profile.write(path)
        if on_result:
            on_result(result)
    return profile
