"""Figure 1: cost over resolution."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from serpent_ir.efficiency.cell import Status
from serpent_ir.efficiency.figures.cells import (
    BYTES,
    NUMBER,
    Cell,
    Units,
    compute,
    memory,
    of_mode,
    of_model,
    resolution,
    size_label,
    tick_label,
)
from serpent_ir.efficiency.figures.style import LONGEST_NAME, WIDTH, Look, write_note

PANEL_HEIGHT = 2.7  # inches
UNFINISHED_MARKERS = {Status.OUT_OF_MEMORY: "x", Status.OVER_TIME_LIMIT: "+", Status.FAILED: "1"}


def scaling_figure(cells: list[Cell], looks: dict[str, Look], note: str) -> Figure:
    """Left GMAC, right memory over resolution, one line a model. What did not finish is marked above the lines."""
    modes = [mode for mode in ("training", "inference") if any(memory(cell) for cell in of_mode(cells, mode))]
    figure = Figure(figsize=(WIDTH if modes else WIDTH / 2, PANEL_HEIGHT), layout="constrained")
    panels = figure.subplots(1, 2 if modes else 1, squeeze=False)[0]
    draw_lines(panels[0], cells, looks, compute, NUMBER)
    panels[0].set(title="Compute", ylabel="GMAC per image")
    samples = [line_sample(look) for model, look in looks.items() if of_model(cells, model)]
    if modes:
        of_this_mode = of_mode(cells, modes[0])
        draw_lines(panels[1], of_this_mode, looks, memory, BYTES)
        samples += [mark_sample(mark) for mark in mark_unfinished(panels[1], of_this_mode, looks)]
        step = "training step" if modes[0] == "training" else "inference pass"
        panels[1].set(title="Memory", ylabel=f"Peak memory of a {step},\nmodel and pass")
    add_legend(figure, samples)
    write_note(figure, note)
    return figure


def add_legend(figure: Figure, samples: list[Line2D]) -> None:
    """A legend above the panels, in as many columns as its longest line admits; the figure grows by its height."""
    texts = [str(sample.get_label()) for sample in samples]
    longest = max(len(line) for text in texts for line in text.splitlines())
    columns = int(min(figure.get_figwidth() // (0.5 + 0.047 * longest), figure.get_figwidth() / WIDTH * 4))
    lines = math.ceil(len(samples) / columns) * max(text.count("\n") + 1 for text in texts)
    figure.set_figheight(figure.get_figheight() + 0.15 * lines)
    figure.legend(handles=samples, loc="outside upper center", ncols=columns, frameon=False, handlelength=2.2)


def draw_lines(
    axes: Axes, cells: list[Cell], looks: dict[str, Look], value: Callable[[Cell], float | None], units: Units
) -> None:
    """One line a model over the resolution, on logarithmic axes whose ticks are the sizes of the cells."""
    for model, look in looks.items():
        points = line_points(of_model(cells, model), value)
        if points:
            axes.plot(*zip(*points, strict=True), **line_style(look), label=look.name)
    axes.set(xscale="log", yscale="log", xlabel="Image size in pixels")
    labels = {resolution(cell): size_label(cell) for cell in cells}
    ticks = spread_out(sorted(labels))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [labels[tick] for tick in ticks])
    bottom, top = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if top < 100 * bottom else (1,), numticks=12))
    axes.yaxis.set_major_formatter(lambda tick, _: tick_label(tick, units))
    axes.yaxis.set_minor_formatter(lambda tick, _: "")
    axes.grid(True, which="major")


def mark_unfinished(axes: Axes, cells: list[Cell], looks: dict[str, Look]) -> list[str]:
    """Mark in rows above all lines which model did not finish at which size; gives the statuses that were marked."""
    unfinished = [cell for model in looks for cell in of_model(cells, model) if cell["status"] in UNFINISHED_MARKERS]
    if not unfinished:
        return []
    places = [resolution(cell) for cell in unfinished]
    rows = [places[:index].count(place) for index, place in enumerate(places)]
    count = max(rows) + 1
    bottom, top = axes.get_ylim()
    raised = bottom * (top / bottom) ** (1 / (1 - 0.06 * count))  # each row takes 6 % of the height
    for minor in (False, True):
        axes.set_yticks([tick for tick in axes.get_yticks(minor=minor) if tick <= top], minor=minor)
    axes.set_ylim(bottom, raised)
    axes.axhspan(top, raised, color="0.95", linewidth=0, zorder=0)
    for cell, place, row in zip(unfinished, places, rows, strict=True):
        height = top * (raised / top) ** ((row + 0.5) / count)
        colour = looks[cell["model"]].colour
        before = [point for point in line_points(of_model(cells, cell["model"]), memory) if point[0] < place]
        if before:
            axes.plot(*zip(before[-1], (place, height), strict=True), color=colour, linestyle=":", linewidth=0.8)
        axes.plot(place, height, color=colour, **mark_style(cell["status"]))
    return [mark for mark in UNFINISHED_MARKERS if any(cell["status"] == mark for cell in unfinished)]


def line_points(cells: list[Cell], value: Callable[[Cell], float | None]) -> list[tuple[float, float]]:
    """(resolution, value) of a model's cells that have a value, from small to large."""
    points = {(cell["height"], cell["width"]): (resolution(cell), value(cell)) for cell in cells}
    return sorted((place, height) for place, height in points.values() if height)


def line_sample(look: Look) -> Line2D:
    return Line2D([], [], **line_style(look), label=textwrap.fill(look.name, LONGEST_NAME))


def mark_sample(mark: str) -> Line2D:
    return Line2D([], [], color="black", **mark_style(mark), label=mark)


def mark_style(mark: str) -> dict[str, Any]:
    return {"marker": UNFINISHED_MARKERS[mark], "linestyle": "", "markersize": 5, "markeredgewidth": 1.5}


def line_style(look: Look) -> dict[str, Any]:
    line = "--" if look.hatch else "-"
    return {"color": look.colour, "marker": look.marker, "linestyle": line, "markersize": 3.5, "linewidth": 1.2}


def spread_out(places: list[float]) -> list[float]:
    """Those of the sorted `places` that lie far enough from each other, on a logarithmic axis, to be labelled."""
    kept = places[:1]
    for place in places[1:]:
        if place / kept[-1] >= (places[-1] / places[0]) ** (1 / 9):
            kept.append(place)
    return kept
