"""What cpu.py measures of whole systems and of rivals of the scan; as cpu_scan.py does."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import rivals
import torch
from common import Options, ratios, rounds, spread
from torch import Tensor

from serpent_ir.efficiency.cell import Cell, Settings, Status, create, inference_pass, inputs, timed, training_step
from serpent_ir.efficiency.process import run_in_process
from serpent_ir.ops import use_backend

INFERENCE = ("serpent-b", "unet-32", "serpent-l", "unet-128", "serpent-h", "restormer", "swinir-b")
TRAINING = ("serpent-b", "unet-32")
EVERY = {"unet-128": 3, "swinir-b": 3}  # slow models take part in every third round
MODEL_RATIOS = (
    ("unet-32", "serpent-b"),
    ("unet-128", "serpent-l"),
    ("restormer", "serpent-h"),
    ("swinir-b", "serpent-h"),
    ("unet-32 training", "serpent-b training"),
)
SHORTEST = 0.3  # seconds of one model in one round
LENGTHS = (4096, 65536)
SEQUENCE = {"channels": 64, "states": 16}


def models(options: Options) -> dict[str, Any]:
    """Whole models: inference of one image, and a training step of 8 crops."""
    size, crop, batch = (64, 32, 2) if options.quick else (256, 128, 8)
    passes = {name: model_pass(Cell(name, size, size)) for name in INFERENCE}
    passes |= {
        f"{name} training": model_pass(Cell(name, crop, crop, batch=batch, mode="training")) for name in TRAINING
    }
    count = max(2, options.repeats // 2)
    taking_part = {name: range(0, count, EVERY.get(name, 1)) for name in passes}
    times: dict[str, dict[int, float]] = {name: {} for name in passes}
    for run in passes.values():
        run()  # not counted
    for number in range(count):
        for name, run in passes.items():
            if number in taking_part[name]:
                times[name][number] = median_pass(run)

    def ratio(other: str, ours: str) -> dict[str, float]:
        together = [number for number in times[other] if number in times[ours]]
        return ratios([times[other][number] for number in together], [times[ours][number] for number in together])

    return {
        "size": size,
        "training": {"size": crop, "batch": batch},
        "rounds": {name: len(numbers) for name, numbers in taking_part.items()},
        "least_seconds_of_a_round": SHORTEST,  # fast models run several times in a round, which counts their median
        "seconds": {name: spread(values.values()) for name, values in times.items()},
        "ratios": {f"{other} / {ours}": ratio(other, ours) for other, ours in MODEL_RATIOS},
    }


def model_pass(cell: Cell) -> Callable[[], float]:
    """One pass of a cell as `serpent profile` has it; gives its seconds."""
    torch.manual_seed(0)
    model = create(cell.model)
    step = (inference_pass if cell.mode == "inference" else training_step)(model, cell)
    image, target = inputs(model, cell, cell.height, cell.width)
    return lambda: timed(step, image, target)


def median_pass(run: Callable[[], float]) -> float:
    """The median of as many passes as take SHORTEST seconds together, one at least."""
    seconds: list[float] = []
    while sum(seconds) < SHORTEST:
        seconds.append(run())
    return statistics.median(seconds)


def memory(options: Options) -> dict[str, Any]:
    """The peak resident memory of a process that runs one model on one large image, inference."""
    size = 256 if options.quick else 2048
    settings = Settings(options.threads, runs=1 if options.quick else 3, time_limit=None)
    answers = {name: run_in_process(Cell(name, size, size), settings) for name in ("serpent-b", "serpent-h")}
    for name, answer in answers.items():
        if answer["status"] != Status.MEASURED:
            raise SystemExit(f"refused: {name} at {size}²: {answer['status']}, {answer['reason']}")
    return {"size": size, "unit": "bytes, seconds", **answers}


def sequences(options: Options) -> dict[str, Any]:
    """`selective_scan` of one sequence against other ways to run it in torch."""
    rivals.refuse_when_a_rival_is_wrong()
    lengths = (64, 256) if options.quick else LENGTHS
    return {**SEQUENCE, "lengths": {str(length): sequences_of_length(length, options) for length in lengths}}


def sequences_of_length(length: int, options: Options) -> dict[str, Any]:
    """All but the loop over time in rounds; that one runs three times, or, where it takes long, once and at once."""
    inputs = rivals.sequence_inputs(length, **SEQUENCE)
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    upstream = torch.randn_like(inputs["u"])

    def portable(**arguments: Tensor) -> Tensor:
        with use_backend("portable"):
            return rivals.ours(**arguments)

    def forward(function: Callable[..., Tensor]) -> Callable[[], object]:
        def run() -> None:
            with torch.inference_mode():
                function(**inputs)

        return run

    def both(function: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(**leaves), list(leaves.values()), upstream)

    systems: dict[str, Callable[..., Tensor]] = {"native": rivals.ours, "portable": portable, **rivals.RIVALS}
    timings = {(name, "forward"): forward(function) for name, function in systems.items()}
    timings |= {
        (name, "forward_and_backward"): both(function)
        for name, function in systems.items()
        if name not in rivals.NOT_DIFFERENTIABLE
    }
    in_rounds = {key: run for key, run in timings.items() if key[0] != "loop"}
    loop = {key: run for key, run in timings.items() if key[0] == "loop"}
    seconds = rounds(in_rounds, max(2, options.repeats // 4))
    seconds |= rounds(loop, 3 if length < LENGTHS[-1] else 1, warm_up=0)
    result: dict[str, Any] = {name: {} for name in systems}
    for (name, kind), values in seconds.items():
        result[name][kind] = spread(values)
    result["factors"] = {
        name: {kind: times["median"] / result["native"][kind]["median"] for kind, times in result[name].items()}
        for name in systems
        if name != "native"
    }
    return result
