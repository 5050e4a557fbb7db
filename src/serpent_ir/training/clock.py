"""How far a run is: by steps, and by time where the recipe gives a budget."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from serpent_ir.training.recipe import Recipe


class RunClock(Callback):
    """Elapsed time over all restarts (`before`: seconds of earlier sessions), progress, and the stops they cause.

    Time moves on at the end of each step alone, and is the same in all processes that train together: what follows from
    it, the schedule and the end, they all decide alike. A stop that one of them wants, all make.
    """

    def __init__(self, recipe: Recipe, before: float = 0.0) -> None:
        self.steps = recipe.total_steps
        self.budget = recipe.time_budget_seconds
        self.max_time = recipe.max_time_seconds
        self.before = before
        self.session = 0.0
        """Seconds from the start of this process's first step to the end of its last one."""
        self.started: float | None = None
        self.progress_before = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of training over all restarts."""
        return self.before + self.session

    def progress(self, step: int) -> float:
        """max(step / steps, elapsed / time budget): 0 at the start, 1 or more at the end."""
        by_time = 0.0 if self.budget is None else self.elapsed / self.budget
        return max(step / self.steps, by_time)

    def seconds_left(self, step: int) -> float | None:
        """An estimate from the progress since this process's first step; None before there is any."""
        progress = self.progress(step)
        gained = progress - self.progress_before
        return self.session * (1 - min(progress, 1)) / gained if gained > 0 else None

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self.started is None:
            self.started = time.monotonic()
            self.progress_before = self.progress(trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        now = time.monotonic()
        self.session, stop = largest(trainer, now - (self.started or now), float(trainer.should_stop))
        out_of_time = self.max_time is not None and self.session >= self.max_time
        if stop or out_of_time or self.progress(trainer.global_step) >= 1:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, float]:
        return {"elapsed": self.elapsed}


def largest(trainer: Trainer, *numbers: float) -> list[float]:
    """The largest of each number over all processes that train together."""
    if trainer.world_size == 1:
        return list(numbers)
    together = torch.tensor(numbers, dtype=torch.float64, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(together, torch.distributed.ReduceOp.MAX)
    return together.tolist()
