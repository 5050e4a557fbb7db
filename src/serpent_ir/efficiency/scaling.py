"""How time and memory grow with the number of pixels: the exponent of a power law."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serpent_ir.efficiency.cell import Cell
from serpent_ir.efficiency.record import Result
from serpent_ir.errors import RangeError

FEWEST_SIZES = 3


@dataclass(frozen=True)
class Fit:
    """value = constant * pixels ** exponent; the standard error of the exponent, and the number of points."""

    exponent: float
    standard_error: float
    points: int


@dataclass(frozen=True)
class Scaling:
    """How a series of cells, the same but for their size, grows; None where fewer than three sizes were measured.

    series: the cell of size 1 x 1. time: of a pass. memory: what a pass adds to model and optimizer.
    """

    series: Cell
    time: Fit | None
    memory: Fit | None


def fit_exponent(pixels: Sequence[int], values: Sequence[float]) -> Fit:
    """Least squares of log value over log pixels.

    Raises RangeError for fewer than three different numbers of pixels, and for values that are not positive.
    """
    if len(set(pixels)) < FEWEST_SIZES:
        raise RangeError(f"{len(set(pixels))} sizes", f"{FEWEST_SIZES} different ones or more")
    if min(*pixels, *values) <= 0:
        raise RangeError(f"values down to {min(*pixels, *values)}", "positive ones, which have a logarithm")
    x, y = [math.log(pixel) for pixel in pixels], [math.log(value) for value in values]
    exponent, constant = statistics.linear_regression(x, y)
    residuals = sum((b - constant - exponent * a) ** 2 for a, b in zip(x, y, strict=True))
    spread = sum((a - statistics.fmean(x)) ** 2 for a in x)
    return Fit(exponent, math.sqrt(residuals / (len(x) - 2) / spread), len(x))


def exponents(results: Iterable[Result]) -> list[Scaling]:
    """One for each series with three measured sizes or more, in order of appearance."""
    groups: dict[Cell, list[Result]] = {}
    for result in results:
        if result.seconds is not None:
            groups.setdefault(result.cell.series, []).append(result)
    scalings = []
    for common, group in groups.items():
        time = fit_positive([(result.cell.pixels, result.seconds["median"]) for result in group if result.seconds])
        memory = fit_positive([(result.cell.pixels, result.memory["working"]) for result in group if result.memory])
        if time or memory:
            scalings.append(Scaling(common, time, memory))
    return scalings


def fit_positive(points: list[tuple[int, float]]) -> Fit | None:
    """The fit of the points with a positive value (a small pass may take no memory beyond what there was), if any."""
    positive = [point for point in points if point[1] > 0]
    if len({pixels for pixels, _ in positive}) < FEWEST_SIZES:
        return None
    return fit_exponent(*zip(*positive, strict=True))
