"""What changes during a run: the learning rate, and the stage of progressive learning.

Both follow the run's progress, a number from 0 (start) to 1 (end); see `clock.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from serpent_ir.data import BatchKey
from serpent_ir.training.clock import RunClock
from serpent_ir.training.recipe import Recipe, Stage


def in_steps(recipe: Recipe, photographs: int) -> Recipe:
    """The recipe with its length in steps: one given in epochs takes as many as cover `photographs` that often.

    An epoch is as many crops as there are photographs. Stages of smaller batches then have more steps, and their
    fractions are turned into fractions of the steps.
    """
    if recipe.epochs is None:
        return recipe
    crops = [stage.fraction * recipe.epochs * photographs for stage in recipe.stages]
    steps = [math.ceil(count / stage.batch) for count, stage in zip(crops, recipe.stages, strict=True)]
    total = sum(steps)
    stages = [
        dataclasses.replace(stage, fraction=count / total) for stage, count in zip(recipe.stages, steps, strict=True)
    ]
    return dataclasses.replace(recipe, epochs=None, steps=total, stages=stages)


def learning_rate(recipe: Recipe, step: int, progress: float) -> float:
    """The rate for `step` (from 0): linear rise over `warmup` steps, times a cosine from 1 to `lr_end`."""
    warmup = min((step + 1) / (recipe.warmup + 1), 1.0)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return recipe.lr * warmup * (recipe.lr_end + (1 - recipe.lr_end) * cosine)


def stage_at(stages: Sequence[Stage], progress: float) -> Stage:
    """The stage whose share of the run `progress` falls into; the last one from its begin on."""
    end = 0.0
    for stage in stages[:-1]:
        end += stage.fraction
        if progress < end:
            return stage
    return stages[-1]


class StepKeys(Sampler[BatchKey]):
    """Endless keys of the batches from `first_step` on, with crop and batch size of the stage that `clock` says.

    Process number `rank` of `processes` gets its share of each batch.
    """

    def __init__(
        self, stages: Sequence[Stage], clock: RunClock, first_step: int, rank: int = 0, processes: int = 1
    ) -> None:
        self.stages = stages
        self.clock = clock
        self.first_step = first_step
        self.rank = rank
        self.processes = processes

    def __iter__(self) -> Iterator[BatchKey]:
        step = self.first_step
        while True:
            stage = stage_at(self.stages, self.clock.progress(step))
            share = stage.batch // self.processes
            yield BatchKey(step, stage.crop, share, self.rank * share)
            step += 1
