"""What the benchmarks share: the check before, timing, statistics, and the result file."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from serpent_ir.efficiency.cell import quartiles
from serpent_ir.json_file import write_json
from serpent_ir.machine import describe_machine
from serpent_ir.ops import reference, selective_scan_2d, use_backend

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


def scan_inputs(size: int, channels: int, states: int, rank: int, seed: int = 0) -> dict[str, Tensor]:
    """Arguments of `selective_scan_2d` for one size x size map in four directions, float32, as at initialisation."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    dt = torch.exp(math.log(1e-3) + torch.rand(4, channels, generator=generator) * math.log(100))
    inputs = {
        "x": normal(1, size, size, channels),
        "dt_low": normal(1, size, size, 4, rank),
        "B": normal(1, size, size, 4, states),
        "C": normal(1, size, size, 4, states),
        "dt_weight": (2 * torch.rand(4, channels, rank, generator=generator) - 1) * rank**-0.5,
        "dt_bias": torch.log(torch.expm1(dt)),
        "A": -torch.arange(1.0, states + 1).expand(4, channels, states).contiguous(),
        "D": torch.ones(4, channels),
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


def seconds_of_others() -> float | None:
    """Processor seconds that other processes, and other virtual machines, have had so far; None where Linux is not."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = map(int, stat.read_text().split()[1:9])
    busy = user + nice + system + interrupts + soft_interrupts + stolen
    return busy / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def mean_and_error(values: list[float]) -> dict[str, float]:
    """The mean, its standard error (sample standard deviation over the root of the count), and the extremes."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": statistics.fmean(values), "standard_error": error, "smallest": min(values), "largest": max(values)}


def write_result(name: str, content: dict[str, Any]) -> Path:
    """Write results/<name>.json with the machine put in front; returns its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_json({"machine": describe_machine(), **content}, path)
    return path
