"""Figures 6 and 7: bars at one size."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullLocator

from serpent_ir.efficiency.cell import Status
from serpent_ir.efficiency.figures.cells import (
    BYTES,
    MILLIONS,
    NUMBER,
    TIME,
    TIMES,
    Cell,
    Units,
    compute,
    median_time,
    memory,
    model_size,
    of_mode,
    of_model,
    tick_label,
    written,
)
from serpent_ir.efficiency.figures.style import GRAY, LONGEST_NAME, WIDTH, Look, write_note

SMALL = 6.5  # points
LOGARITHMIC_FROM = 20  # the largest value over the smallest


@dataclass(frozen=True)
class Panel:
    """One group of bars. mode: which cells it takes, None for all. value: number of a cell, None when it has none."""

    title: str
    axis: str
    units: Units
    mode: str | None
    value: Callable[[Cell], float | None]


TRAINING_TIME = Panel("Training time", "median time of a step", TIME, "training", median_time)
PANELS = (
    Panel("Compute", "GMAC per image", NUMBER, None, compute),
    TRAINING_TIME,
    Panel("Model size", "parameters", MILLIONS, None, model_size),
    Panel("Training memory", "peak, model and step", BYTES, "training", memory),
    Panel("Inference time", "median time of a pass", TIME, "inference", median_time),
)


def bars_figure(cells: list[Cell], looks: dict[str, Look], note: str) -> Figure:
    """A panel for each quantity that the cells of one size have, in it a row for each model."""
    models = [model for model in looks if of_model(cells, model)]
    shown = [panel for panel in PANELS if any(panel.value(cell) for cell in of_mode(cells, panel.mode))]
    names = [textwrap.fill(looks[model].name, LONGEST_NAME) for model in models]
    lines = max(name.count("\n") + 1 for name in names)
    width = WIDTH * (len(shown) + 1) / (len(PANELS) + 1)
    figure = Figure(figsize=(width, 1.2 + len(models) * (0.1 + 0.1 * lines)), layout="constrained")
    for index, (axes, panel) in enumerate(zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True)):
        draw_bars(axes, panel, {cell["model"]: cell for cell in of_mode(cells, panel.mode)}, models, looks)
        axes.set_yticks(range(len(models)), names if index == 0 else [])
    figure.suptitle(f"{cells[0]['height']} {TIMES} {cells[0]['width']} pixels")
    quantities = [panel.value for panel in shown]
    if median_time in quantities:
        note += " Black lines: between the quartiles."
    if any(cell["status"] == Status.NOT_RUN for cell in cells):
        note += " Not run: a smaller size was already beyond a limit."
    if TRAINING_TIME in shown:
        hours = 60_000 / cells[-1]["batch"] / 3600
        note += f" Steps of 1 s make an epoch of 60\N{NO-BREAK SPACE}000 images last {hours:.3g} h (computed)."
    write_note(figure, note)
    return figure


def draw_bars(axes: Axes, panel: Panel, cells: dict[str, Cell], models: list[str], looks: dict[str, Look]) -> None:
    """A row for each of `models`, from the top: a bar with its value, or in its place why there is none."""
    values = {model: value for model, cell in cells.items() if (value := panel.value(cell))}
    smallest, largest = min(values.values()), max(values.values())
    logarithmic = largest > LOGARITHMIC_FROM * smallest
    start = 10.0 ** math.floor(math.log10(0.7 * smallest)) if logarithmic else 0.0
    if logarithmic:
        axes.set_xscale("log")
    for row, model in enumerate(models):
        if model in values:
            bar: dict[str, Any] = {
                "color": looks[model].colour,
                "hatch": looks[model].hatch,
                "edgecolor": "white",
                "linewidth": 0,
            }
            axes.barh(row, values[model] - start, left=start, height=0.7, **bar)
            end = draw_quartiles(axes, row, cells[model]) if panel.value is median_time else values[model]
            largest = max(largest, end)
            write_beside(axes, row, end, written(values[model], panel.units))
        else:
            write_beside(axes, row, start, unfinished_reason(cells.get(model)), color=GRAY, fontstyle="italic")
    room = 1 / 0.62  # values are written in the last 38 % of the panel
    axes.set_xlim(start, start * (largest / start) ** room if logarithmic else largest * room)
    axes.set_ylim(len(models) - 0.4, -0.6)
    ticks = start, last_tick(start, largest)
    axes.set_xticks(ticks, [tick_label(tick, panel.units) for tick in ticks], fontsize=SMALL)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title(panel.title)
    axes.set_xlabel(panel.axis + (",\nlogarithmic" if logarithmic else ""), fontsize=SMALL)
    axes.tick_params(axis="y", length=0)


def last_tick(start: float, end: float) -> float:
    """The last round number up to `end`: on an axis from 0 the one that a ruler would have, else a power of ten."""
    if start == 0:
        ruler = MaxNLocator(2, steps=[1, 2, 5, 10]).tick_values(0, end)
        return float(max(tick for tick in ruler if tick <= end))
    return start * 10.0 ** math.floor(math.log10(end / start))


def draw_quartiles(axes: Axes, row: int, cell: Cell) -> float:
    """A line from the lower to the upper quartile of a time; gives where it ends."""
    low, high = cell["seconds"]["lower_quartile"], cell["seconds"]["upper_quartile"]
    halo = [withStroke(linewidth=2.4, foreground="white")]
    axes.plot([low, high], [row, row], color="black", linewidth=1.2, solid_capstyle="butt", path_effects=halo)
    return high


def unfinished_reason(cell: Cell | None) -> str:
    return cell["status"] if cell and cell["status"] != Status.COUNTED else "not measured"


def write_beside(axes: Axes, row: int, end: float, text: str, **style: Any) -> None:
    place: dict[str, Any] = {"xytext": (3, 0), "textcoords": "offset points", "verticalalignment": "center_baseline"}
    axes.annotate(text, (end, row), fontsize=SMALL, **place, **style)
