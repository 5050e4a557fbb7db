"""What the benchmarks share: the check before, timing, statistics, and the result file."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.table import Table
from torch import Tensor

from serpent_ir.efficiency.cell import quartiles
from serpent_ir.machine import describe_machine
from serpent_ir.ops import reference, selective_scan_2d, use_backend
from serpent_ir.text_file import write_json

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 1e-4
Key = TypeVar("Key", bound=Hashable)
SCAN_ARGUMENTS = ("x", "dt_low", "B", "C", "dt_weight", "dt_bias", "A", "D")


@dataclass(frozen=True)
class Options:
    """How cpu.py measures.

    repeats: rounds of what takes a second or less; whole models and long sequences get fewer. quick: sizes so small
    that all parts together take about a minute; the figures mean nothing.
    """

    threads: int
    repeats: int
    quick: bool


@dataclass(frozen=True)
class Mark:
    """What the project demands of itself.

    value: what was measured. at_least: `limit` bounds it from below. more: the value must be more than that.
    """

    part: str
    what: str
    value: float
    limit: float
    at_least: bool = False
    more: bool = False

    @property
    def met(self) -> bool:
        if self.more:
            return self.value > self.limit
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def scan_inputs(
    size: int | tuple[int, int], channels: int, states: int, rank: int, seed: int = 0, *, batch: int = 1,
    directions: int = 4, device: torch.device | str = "cpu",
) -> dict[str, Tensor]:  # fmt: skip
    """Arguments of `selective_scan_2d` for one map, float32, as at initialisation.

    size: of a square map, or (height, width). device: where the numbers are made; another device makes others.
    """
    generator = torch.Generator(device).manual_seed(seed)
    pixels = (batch, *((size, size) if isinstance(size, int) else size))
    parameters = (directions, channels)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    dt = torch.exp(math.log(1e-3) + uniform(*parameters) * math.log(100))
    inputs = {
        "x": normal(*pixels, channels),
        "dt_low": normal(*pixels, directions, rank),
        "B": normal(*pixels, directions, states),
        "C": normal(*pixels, directions, states),
        "dt_weight": (2 * uniform(*parameters, rank) - 1) * rank**-0.5,
        "dt_bias": torch.log(torch.expm1(dt)),
        "A": -torch.arange(1.0, states + 1, device=device).expand(*parameters, states).contiguous(),
        "D": torch.ones(parameters, device=device),
    }
    return {name: inputs[name] for name in SCAN_ARGUMENTS}


def refuse_when_the_scan_is_wrong(backends: tuple[str, ...]) -> None:
    """Exit unless every backend equals the float64 oracle on a small map, in output and every gradient."""
    inputs = {name: value.requires_grad_() for name, value in scan_inputs(size=7, channels=5, states=3, rank=2).items()}
    expected = with_gradients(reference.selective_scan_2d(**inputs), inputs)
    for backend in backends:
        with use_backend(backend):
            computed = with_gradients(selective_scan_2d(*inputs.values()), inputs)
        for name, value in computed.items():
            error = float((value - expected[name]).abs().max() / expected[name].abs().max())
            if not error < TOLERANCE:
                raise SystemExit(f"refused: {name} of backend {backend} is off by {error:.1e} (relative maximum)")


def with_gradients(y: Tensor, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """y and the gradient of sum(y * sin(0, 1, 2, ...)) to every input, in float64."""
    weights = torch.sin(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)
    gradients = torch.autograd.grad((y * weights).sum(), list(inputs.values()))
    values = {"y": y.detach(), **{f"gradient of {name}": value for name, value in zip(inputs, gradients, strict=True)}}
    return {name: value.double() for name, value in values.items()}


def rounds(functions: Mapping[Key, Callable[[], object]], repeats: int, warm_up: int = 1) -> dict[Key, list[float]]:
    """Seconds of each function, called one after the other in `repeats` rounds, after `warm_up` that are not counted.

    What is compared is so measured at the same time: the speed of many machines drifts within minutes. A function that
    gives a float has timed itself.
    """
    seconds: dict[Key, list[float]] = {name: [] for name in functions}
    for number in range(-warm_up, repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            own = function()
            elapsed = time.perf_counter() - start
            if number >= 0:
                seconds[name].append(own if isinstance(own, float) else elapsed)
    return seconds


def spread(values: Iterable[float]) -> dict[str, float]:
    """The median and the quartiles, and of how many values."""
    values = list(values)
    return {**quartiles(values), "repeats": len(values)}


def ratios(upper: list[float], lower: list[float]) -> dict[str, float]:
    """The spread of the quotients of single rounds."""
    return spread(above / below for above, below in zip(upper, lower, strict=True))


def mean_and_error(values: list[float]) -> dict[str, float]:
    """The mean, its standard error (sample standard deviation over the root of the count), and the extremes."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": statistics.fmean(values), "standard_error": error, "smallest": min(values), "largest": max(values)}


def write_result(name: str, content: dict[str, Any], path: Path | None = None) -> Path:
    """Write results/<name>.json, or `path`, with the machine put in front; returns the path."""
    path = RESULTS / f"{name}.json" if path is None else path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json({"machine": describe_machine(), **content}, path)
    return path


def new_table(title: str, *headers: str) -> Table:
    table = Table(title=title)
    for header in headers:
        table.add_column(header)
    return table


def marks_table(marks: list[Mark]) -> Table:
    table = new_table("Marks", "part", "", "measured", "demanded", "")
    for mark in marks:
        demanded = f"{'more than' if mark.more else 'at least' if mark.at_least else 'at most'} {mark.limit:g}"
        table.add_row(mark.part, mark.what, three_digits(mark.value), demanded, "" if mark.met else "missed")
    return table


def figures(spread: dict[str, float], scale: float = 1.0) -> str:
    """Median and quartiles: 1.23 (1.2 to 1.31)."""
    median, lower, upper = (three_digits(scale * spread[key]) for key in ("median", "lower_quartile", "upper_quartile"))
    return f"{median} ({lower} to {upper})"


def three_digits(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"
