"""How far a run is: by steps, and by time where the recipe gives a budget."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from serpent_ir.training.recipe import Recipe


class RunClock(Callback):
    """Elapsed time over all restarts (`before`: seconds of earlier sessions), progress, and the stops they cause."""

    def __init__(self, recipe: Recipe, before: float = 0.0) -> None:
        self.steps = recipe.steps
        self.budget = recipe.time_budget_seconds
        self.max_time = recipe.max_time_seconds
        self.before = before
        self.started: float | None = None

    @property
    def session(self) -> float:
        """Seconds since training began or was resumed in this process."""
        return 0.0 if self.started is None else time.monotonic() - self.started

    @property
    def elapsed(self) -> float:
        """Seconds of training over all restarts."""
        return self.before + self.session

    def progress(self, step: int) -> float:
        """max(step / steps, elapsed / time budget): 0 at the start, 1 or more at the end."""
        by_time = 0.0 if self.budget is None else self.elapsed / self.budget
        return max(step / self.steps, by_time)

    def seconds_left(self, step: int) -> float | None:
        """An estimate; None before there is anything to estimate from."""
        progress = self.progress(step)
        if progress <= 0 or self.elapsed <= 0:
            return None
        return self.elapsed * (1 - min(progress, 1)) / progress

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        out_of_time = self.max_time is not None and self.session >= self.max_time
        if out_of_time or self.progress(trainer.global_step) >= 1:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.before, self.started = self.elapsed, None

    def state_dict(self) -> dict[str, float]:
        return {"elapsed": self.elapsed}
