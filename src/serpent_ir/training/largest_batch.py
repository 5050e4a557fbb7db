"""The largest batches whose training steps fit in memory."""

from __future__ import annotations

import dataclasses
import logging

import torch

from serpent_ir.efficiency import memory
from serpent_ir.efficiency.cell import gauge
from serpent_ir.errors import RecipeError, TrainingError
from serpent_ir.training.activation_checkpointing import recompute_blocks
from serpent_ir.training.forecast import try_step
from serpent_ir.training.initial_model import initial_model, task_of
from serpent_ir.training.processes import device_type, run_processes, started_by_cluster
from serpent_ir.training.recipe import Recipe, Stage
from serpent_ir.training.run_folder import RunFolder, recorded_recipe

log = logging.getLogger(__name__)

SHARE_OF_MEMORY = 0.9
LARGEST = 4096
"""Crops of the largest size in a process; more are not tried."""

FEW = 4
"""With fewer, what a step takes beside its crops would hide what they take."""


def with_largest_batches(recipe: Recipe, folder: RunFolder) -> Recipe:
    """The recipe with batches that fit in memory, where it asks for them: those of the run that it continues, or found
    by trying, in a process of its own.

    Raises TrainingError when not even the smallest batch fits, RecipeError where the processes that train together were
    started from outside and might find different ones, or cannot share evenly those of the run that is continued.
    """
    if not recipe.auto_batch:
        return recipe
    batches = _noted_batches(recipe, folder)
    if batches is None:
        if started_by_cluster() and recipe.processes > 1:
            raise RecipeError(
                "recipe field auto_batch under torchrun or srun", "batches in the recipe, the same in all processes"
            )
        batches = [batch * recipe.processes for batch in run_processes("largest_batches", recipe, 1)["batches"]]
    stages = [dataclasses.replace(stage, batch=batch) for stage, batch in zip(recipe.stages, batches, strict=True)]
    log.info("batches: %s", ", ".join(f"{stage.batch} x {stage.crop} px" for stage in stages))
    if any(batch % recipe.processes for batch in batches):
        raise RecipeError(
            f"the run in {folder.path} has batches of {', '.join(map(str, batches))}",
            f"batches that {recipe.processes} processes share evenly",
            "Continue it with as many --devices as before.",
        )
    return dataclasses.replace(recipe, stages=stages)


def _noted_batches(recipe: Recipe, folder: RunFolder) -> list[int] | None:
    """The batches of the run that `recipe` continues, when it has the same stages otherwise."""
    before = recorded_recipe(folder)
    if recipe.resume == "never" or not folder.has_checkpoint() or not before.get("auto_batch"):
        return None
    stages = [Stage(**stage) for stage in before["stages"]]
    if [(stage.crop, stage.fraction) for stage in stages] != [(stage.crop, stage.fraction) for stage in recipe.stages]:
        return None
    return [stage.batch for stage in stages]


def largest_batches(recipe: Recipe) -> list[int]:
    """Crops a step of each stage in one process: a power of two in the stage of the largest crops, in the others as
    many as make equally many pixels. On the CPU the processes that train together share its memory.

    On CUDA steps are really taken, twice as large each time, until memory ends; on the CPU the memory of two small
    steps says how much a larger one takes (it fills the memory: seldom what one wants there).

    Raises TrainingError when the smallest batch does not fit.
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    device = torch.device(device_type(recipe))
    task = task_of(recipe)
    model = initial_model(recipe, task).to(device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    kept = 3 * 4 * parameters  # averaged weights and Adam's two averages, float32
    if recipe.activation_checkpointing:
        recompute_blocks(model)

    def peak(largest_crops: int) -> int:
        """Bytes that the stages' steps take at most."""
        batches = scaled(recipe.stages, largest_crops)
        costs = [
            try_step(model, recipe, stage.crop, batch, task.channels, device)
            for stage, batch in zip(recipe.stages, batches, strict=True)
        ]
        return max(cost.memory or 0 for cost in costs) + kept

    if device.type == "cpu":
        memory.give_back_what_is_freed()
        peak(1)  # sets up what every step needs
        available = ((memory.affordable() or 0) + memory.resident()) // recipe.devices
        few, more = peak(FEW), peak(2 * FEW)
        return scaled(recipe.stages, _predicted(few, max(more - few, 1) / FEW, available))
    if gauge(device) is None:
        raise RecipeError(f"recipe field auto_batch on {device}", "batches in the recipe: this device tells no memory")
    peak(1)
    available = int(SHARE_OF_MEMORY * torch.cuda.get_device_properties(device).total_memory)
    fitting = 1
    while fitting < LARGEST:
        try:
            if peak(2 * fitting) > available:
                break
        except TrainingError:
            break
        fitting *= 2
    return scaled(recipe.stages, fitting)


def scaled(stages: list[Stage], largest_crops: int) -> list[int]:
    """The batch of each stage when that of the largest crop is `largest_crops` and all have as many pixels."""
    side = max(stage.crop for stage in stages)
    return [max(1, round(largest_crops * (side / stage.crop) ** 2)) for stage in stages]


def _predicted(few: int, each: float, available: int) -> int:
    """The largest power of two so that `few` bytes for the first crops and `each` for every other are available.

    Raises TrainingError when the first crop does not fit.
    """
    one = few - (FEW - 1) * each
    if one > available:
        raise TrainingError(f"the smallest training step takes {one / 2**30:.1f} GiB of {available / 2**30:.1f} GiB")
    fitting = 1
    while fitting < LARGEST and one + (2 * fitting - 1) * each <= available:
        fitting *= 2
    return fitting
