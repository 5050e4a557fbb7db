"""What is read from the cells of a profile, and how it is written for people."""

from __future__ import annotations

import math
from typing import Any

Cell = dict[str, Any]
"""A cell as in the JSON file of a profile."""

TIMES = "\N{MULTIPLICATION SIGN}"

Units = tuple[tuple[float, str], ...]
TIME: Units = ((1e-6, " µs"), (1e-3, " ms"), (1.0, " s"))
BYTES: Units = ((1e3, " kB"), (1e6, " MB"), (1e9, " GB"))
MILLIONS: Units = ((1e6, " M"),)
NUMBER: Units = ((1.0, ""), (1e3, " k"), (1e6, " M"))


def compute(cell: Cell) -> float | None:
    return cell["gmac"]


def model_size(cell: Cell) -> float | None:
    return cell["parameters"]


def median_time(cell: Cell) -> float | None:
    return cell["seconds"]["median"] if cell["seconds"] else None


def memory(cell: Cell) -> float | None:
    """Bytes that the model and its pass need, beyond what the process held before."""
    return cell["memory"]["peak"] - cell["memory"]["baseline"] if cell["memory"] else None


def resolution(cell: Cell) -> float:
    """The side of the square that has as many pixels."""
    return math.sqrt(cell["height"] * cell["width"])


def size_label(cell: Cell) -> str:
    height, width = cell["height"], cell["width"]
    return f"{height}²" if height == width else f"{height}{TIMES}{width}"


def of_mode(cells: list[Cell], mode: str | None) -> list[Cell]:
    return [cell for cell in cells if mode in (None, cell["mode"])]


def of_model(cells: list[Cell], model: str) -> list[Cell]:
    return [cell for cell in cells if cell["model"] == model]


def written(value: float, units: Units) -> str:
    """A value with three digits in the largest unit that keeps it at 1 or above: 0.0384 -> "38.4 ms"."""
    value = float(f"{value:.3g}")
    scale, unit = fitting(value, units)
    decimals = max(0, 2 - math.floor(math.log10(value / scale)))
    return f"{value / scale:.{decimals}f}{unit}"


def tick_label(value: float, units: Units) -> str:
    scale, unit = fitting(value, units)
    return f"{value / scale:g}{unit}" if value else "0"


def fitting(value: float, units: Units) -> tuple[float, str]:
    return max([unit for unit in units if unit[0] <= value * (1 + 1e-9)], default=units[0])
