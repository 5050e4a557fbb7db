"""Profiles as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from serpent_ir.efficiency.cell import BEYOND_A_LIMIT, Cell, Status
from serpent_ir.efficiency.record import Result
from serpent_ir.efficiency.scaling import Fit, Scaling, exponents

TIME_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
DECIMALS = ((100, 0), (10, 1), (1, 2), (0.1, 3))
STYLE: dict[str, Any] = {"box": None, "padding": (0, 1), "pad_edge": False}


def report(machine: dict[str, Any], results: Iterable[Result]) -> Iterator[RenderableType]:
    """For each mode, precision, device and batch: a heading, a row per result, what ran the scan, why some results are
    missing or rest on few passes, and the growth."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(conditions(machine, result.cell), []).append(result)
    for title, group in groups.items():
        yield Text(f"\n{title}", style="bold")
        yield result_table(group)
        for backend in sorted({result.scan_backend for result in group if result.scan_backend}):
            yield Text(f"scan: {backend}")
        for result in group:
            if result.reason and result.status not in BEYOND_A_LIMIT:
                yield Text(f"{result.cell.model} {result.cell.size}: {result.status}: {result.reason}")
        scalings = exponents(group)
        if scalings:
            yield Text("\ngrowth: value ∝ pixels^exponent ± standard error (sizes)", style="bold")
            yield scaling_table(scalings)


def conditions(machine: dict[str, Any], cell: Cell) -> str:
    """What a cell was measured under: all but its model and size."""
    threads = machine["torch_threads"]
    on_cpu = f"{machine['processor']} with {threads} thread{'s' if threads > 1 else ''}"
    on_device = on_cpu if cell.device == "cpu" else f"{machine['accelerator'] or 'accelerator'} ({cell.device})"
    return f"{cell.mode}, {cell.precision}, batch {cell.batch}, {on_device}"


def result_table(results: Sequence[Result]) -> Table:
    """One row per result; columns for measured values where there are any."""
    table = Table(**STYLE)
    timed = any(result.status != Status.COUNTED for result in results)
    weighed = any(result.memory for result in results)
    table.add_column("model", overflow="fold")
    for header in ("size", "params\n(M)", "GMAC"):
        table.add_column(header, justify="right", no_wrap=True)
    if timed:
        table.add_column("time\n(quartiles)", no_wrap=True)
        table.add_column("images\nper s", justify="right", no_wrap=True)
    if weighed:
        table.add_column("memory\n(GB)", justify="right", no_wrap=True)
        table.add_column("pass\n(GB)", justify="right", no_wrap=True)
    for result in results:
        row = [result.cell.model, result.cell.size, f"{result.parameters / 1e6:.3f}", gmac_text(result.gmac)]
        if timed:
            row += [outcome_text(result) if result.seconds else result.status, images_per_second_text(result)]
        if weighed:
            row += memory_texts(result)
        table.add_row(*map(Text, row))
    return table


def scaling_table(scalings: Sequence[Scaling]) -> Table:
    """One row per series: the exponents of time and memory over pixels."""
    table = Table(**STYLE)
    table.add_column("model", overflow="fold")
    table.add_column("time")
    table.add_column("memory of a pass")
    for scaling in scalings:
        table.add_row(*map(Text, (scaling.series.model, fit_text(scaling.time), fit_text(scaling.memory))))
    return table


def result_line(result: Result) -> str:
    """Cell and outcome in a line."""
    return f"{cell_text(result.cell)}: {outcome_text(result)}"


def cell_text(cell: Cell) -> str:
    """'serpent-b, 256x256, training, float32, cpu, batch 1'."""
    return f"{cell.model}, {cell.size}, {cell.mode}, {cell.precision}, {cell.device}, batch {cell.batch}"


def outcome_text(result: Result) -> str:
    """'85.9 ms (80.4-95.3)': median and quartiles in the unit of the median; else the status, perhaps its reason."""
    if result.seconds is None:
        with_reason = result.status in (Status.NOT_RUN, Status.FAILED) and result.reason
        return f"{result.status}: {result.reason}" if with_reason else result.status
    median = result.seconds["median"]
    size, unit = next(((size, unit) for size, unit in TIME_UNITS if median >= size), TIME_UNITS[-1])
    values = (result.seconds[name] / size for name in ("median", "lower_quartile", "upper_quartile"))
    middle, lower, upper = map(three_digits, values)
    return f"{middle} {unit} ({lower}-{upper})"


def gmac_text(gmac: float) -> str:
    """Two decimals below 100, one above: 1.40, 12.16, 222.4."""
    return f"{gmac:.2f}" if gmac < 100 else f"{gmac:.1f}"


def images_per_second_text(result: Result) -> str:
    return "" if result.images_per_second is None else three_digits(result.images_per_second)


def memory_texts(result: Result) -> list[str]:
    """What model and pass need, and what the pass alone."""
    if result.memory is None:
        return ["", ""]
    needed = result.memory["peak"] - result.memory["baseline"]
    return [three_digits(size / 1e9) for size in (needed, result.memory["working"])]


def three_digits(value: float) -> str:
    """Three significant digits, or more before the point, and four decimals at most: 1234, 1.23, 0.123, 0.0012."""
    decimals = next((decimals for limit, decimals in DECIMALS if abs(value) >= limit), 4)
    return f"{value:.{decimals}f}"


def fit_text(fit: Fit | None) -> str:
    return "" if fit is None else f"{fit.exponent:.2f} ± {fit.standard_error:.2f} ({fit.points})"
