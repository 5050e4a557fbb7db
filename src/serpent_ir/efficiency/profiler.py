"""Measuring many cells: cheapest first, kept in a file after each, continued where it stopped."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from serpent_ir.efficiency import status
from serpent_ir.efficiency.cell import MINIMUM_RUNS, Cell, Settings, create
from serpent_ir.efficiency.cost import count_gmac, count_parameters
from serpent_ir.efficiency.process import run_in_process
from serpent_ir.efficiency.record import Profile, Result, read_profile
from serpent_ir.errors import DataError
from serpent_ir.machine import describe_machine

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


def series(cell: Cell) -> Cell:
    """The cell of size 1 x 1: what all sizes, otherwise the same, have in common."""
    return replace(cell, height=1, width=1)


def too_large(cell: Cell, results: Iterable[Result]) -> str | None:
    """Why the cell need not be tried: a smaller size, otherwise the same, was beyond a limit. None: try it."""
    beyond = [
        result
        for result in results
        if result.status in status.BEYOND_A_LIMIT
        and series(result.cell) == series(cell)
        and result.cell.pixels < cell.pixels
    ]
    if not beyond:
        return None
    smallest = min(beyond, key=lambda result: result.cell.pixels)
    return f"{'did not fit' if smallest.status == status.OUT_OF_MEMORY else 'took too long'} at {smallest.cell.size}"


def cell_seconds(pass_seconds: float, settings: Settings) -> float:
    """How long a cell takes when a pass takes `pass_seconds`: starting, two passes before, and those that are timed."""
    fewest, most = (runs * pass_seconds for runs in (min(MINIMUM_RUNS, settings.runs), settings.runs))
    expected = START_UP + 2 * pass_seconds + max(fewest, min(settings.seconds, most))
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


def flat(facts: dict[str, Any]) -> dict[str, Any]:
    """A dictionary of dictionaries as one."""
    pairs: dict[str, Any] = {}
    for name, value in facts.items():
        pairs.update(flat(value) if isinstance(value, dict) else {name: value})
    return pairs


def results_to_keep(path: Path, machine: dict[str, Any], settings: Settings) -> dict[Cell, Result]:
    """What the file at `path` has, if there is one; what another memory or time limit decided is left out.

    Raises DataError when it is no profile, or was measured under other conditions (what was only counted has none).
    """
    if not path.exists():
        return {}
    before = read_profile(path)
    if all(result.status == status.COUNTED for result in before.results.values()):
        return before.results
    there, here = flat(before.machine), flat(machine)
    differences = [
        f"{name} {there.get(name)} there, {here.get(name)} here"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    ]
    if differences:
        raise DataError(
            f"{path} was measured under other conditions: {'; '.join(differences)}",
            remedy="Give another --out, or replace the file with --fresh.",
        )
    limits = settings.memory_limit, settings.time_limit
    if limits == (before.settings.memory_limit, before.settings.time_limit):
        return before.results
    decided_by_limits = (*status.BEYOND_A_LIMIT, status.NOT_RUN)
    return {cell: result for cell, result in before.results.items() if result.status not in decided_by_limits}


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

    What the file has is kept and not measured again, except for cells that failed. A cell is not run when a smaller
    size of it did not fit in memory or in the time limit.

    Args:
        count_only: parameters and GMAC alone, nothing is run.
        fresh: forget what the file has.
        on_start: called before each cell with it, its index and the number of cells to do now, and the seconds that
            all of them may still take (None: nothing tells).
        on_result: called after each cell.
        runner: measures a cell, in a process of its own unless told otherwise.

    Raises:
        UnknownNameError, RangeError: a model that does not exist; nothing was measured.
        DataError: the file is no profile, or one of another machine, other versions or another number of threads.
        FileWriteError: the file cannot be written.
    """
    machine = {**describe_machine(), "torch_threads": settings.threads}
    costs = {cell: cost(cell.model, cell.height, cell.width) for cell in cells}
    profile = Profile(machine, settings, {} if fresh else results_to_keep(path, machine, settings))
    done = {cell for cell, result in profile.results.items() if count_only or result.status in status.FINISHED}
    todo = [Result(cell, *counts, status.COUNTED) for cell, counts in costs.items() if cell not in done]
    todo.sort(key=lambda counted: counted.work)
    profile.write(path)
    for index, counted in enumerate(todo):
        cell = counted.cell
        if on_start:
            on_start(cell, index, len(todo), seconds_left(todo[index:], profile.results.values(), settings))
        if count_only:
            result = counted
        elif reason := too_large(cell, profile.results.values()):
            result = replace(counted, status=status.NOT_RUN, reason=reason)
        else:
            result = replace(counted, **runner(cell, settings))
        profile.results[cell] = result
        profile.write(path)
        if on_result:
            on_result(result)
    return profile
