"""What a run will take, said before it starts: parameters, multiply-accumulates, memory, time of a step and of all.

Time and memory are measured: one step of each stage is tried, without changing the model.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from serpent_ir.efficiency import count_gmac, count_parameters
from serpent_ir.efficiency.cell import gauge
from serpent_ir.errors import TrainingError, lacks_memory
from serpent_ir.training.clock import RunClock
from serpent_ir.training.losses import LOSSES
from serpent_ir.training.recipe import Recipe, Stage
from serpent_ir.training.restoration_module import RestorationModule

log = logging.getLogger(__name__)

PATIENCE = 20.0
"""Seconds of trying, after which the remaining stages are taken to cost as much a pixel as the last one tried."""

MEBIBYTE = 2**20


@dataclass(frozen=True)
class StepCost:
    """Seconds of a training step; peak memory in bytes (None: the device does not tell): of torch's tensors on CUDA, of
    the whole process on the CPU."""

    seconds: float
    memory: int | None


def try_step(model: nn.Module, recipe: Recipe, crop: int, batch: int, channels: int, device: torch.device) -> StepCost:
    """Forward and backward pass on random images, timed; gradients are dropped. Raises TrainingError without memory."""
    generator = torch.Generator().manual_seed(0)
    degraded = torch.rand(batch, channels, crop, crop, generator=generator).to(device)
    meter = gauge(device)
    if meter:
        meter.reset_peak()
    start = time.perf_counter()
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            loss = LOSSES[recipe.loss](model(degraded), degraded[:, :3])
        loss.backward()
        loss.item()  # waits for the device
    except (RuntimeError, MemoryError) as error:
        if lacks_memory(error):
            raise TrainingError(
                f"a training step with {batch} crops of {crop} x {crop} pixels needs more memory than there is",
                remedy="Take smaller batches, or --auto_batch true, or --activation_checkpointing true.",
            ) from error
        raise
    finally:
        model.zero_grad(set_to_none=True)
    return StepCost(time.perf_counter() - start, meter.peak() if meter else None)


def try_stages(
    model: nn.Module, recipe: Recipe, stages: list[Stage], channels: int, device: torch.device
) -> list[StepCost]:
    """The cost of a step of each stage in one process; the first pass, which sets things up, is not counted."""
    costs: list[StepCost] = []
    begun = time.perf_counter()
    for stage in stages:
        if costs and time.perf_counter() - begun > PATIENCE:
            last = stages[len(costs) - 1]
            more = (stage.batch * stage.crop**2) / (last.batch * last.crop**2)
            costs.append(StepCost(more * costs[-1].seconds, None))
            continue
        share = stage.batch // recipe.processes
        if not costs or recipe.compile:
            try_step(model, recipe, stage.crop, share, channels, device)
        costs.append(try_step(model, recipe, stage.crop, share, channels, device))
    return costs


def seconds_left(recipe: Recipe, clock: RunClock, step: int, costs: list[StepCost]) -> tuple[float, int]:
    """Seconds until the end of the run, without validations, and the steps it will then have taken."""
    by_steps, steps_by_time, begin = 0.0, 0.0, 0.0
    done = clock.progress(step)
    for stage, cost in zip(recipe.stages, costs, strict=True):
        share = max(begin + stage.fraction - max(begin, done), 0.0)
        begin += stage.fraction
        by_steps += share * recipe.total_steps * cost.seconds
        if recipe.time_budget_seconds is not None:
            steps_by_time += share * recipe.time_budget_seconds / cost.seconds
    if recipe.time_budget_seconds is None:
        return by_steps, recipe.total_steps
    by_time = max(recipe.time_budget_seconds - clock.elapsed, 0.0)
    return (by_steps, recipe.total_steps) if by_steps <= by_time else (by_time, step + max(round(steps_by_time), 1))


class Forecast(Callback):
    """Logs, before the first step of a session, what the model and a step cost and how long the run will take."""

    def __init__(self, recipe: Recipe, clock: RunClock) -> None:
        self.recipe = recipe
        self.clock = clock

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, RestorationModule)
        recipe, step = self.recipe, trainer.global_step
        module.model.train()
        costs = try_stages(module.model, recipe, recipe.stages, module.task.channels, module.device)
        moments = 0 if trainer.optimizers[0].state else 2 * 4 * count_parameters(module.model)  # Adam's, float32
        if trainer.is_global_zero:
            for line in self.lines(module, costs, step, moments):
                log.info(line)

    def lines(self, module: RestorationModule, costs: list[StepCost], step: int, moments: int) -> list[str]:
        """moments: bytes that the optimiser will take with its first step."""
        recipe, model = self.recipe, module.average.module
        crop = recipe.stages[-1].crop
        gmac = count_gmac(model, crop, crop)
        millions = count_parameters(module.model) / 1e6
        lines = [f"{recipe.model}: {millions:.3f} M parameters, {gmac:.2f} GMAC for a crop of {crop} x {crop}"]
        steps = [
            f"{cost.seconds:.2g} s for {stage.batch} x {stage.crop} px"
            for stage, cost in zip(recipe.stages, costs, strict=True)
        ]
        memory = [cost.memory for cost in costs if cost.memory is not None]
        where = "of the process" if module.device.type == "cpu" else "on the device"
        need = f"; memory {where} {_size(max(memory) + moments)}" if memory else ""
        lines.append(f"a step, tried: {', '.join(steps)}{need}")
        seconds, last = seconds_left(recipe, self.clock, step, costs)
        lines.append(f"steps {step + 1} to about {last}: about {duration_text(seconds)}, without validations")
        return lines


def _size(memory: int) -> str:
    return f"{memory / 2**30:.1f} GiB" if memory >= 2**30 else f"{memory / MEBIBYTE:.0f} MiB"


def duration_text(seconds: float) -> str:
    """'3 d 04 h', '1 h 05 min', '12 min 03 s' or '40 s'."""
    whole = round(seconds)
    if whole >= 86400:
        return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
