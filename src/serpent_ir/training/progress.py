"""The progress of a run on stderr: a bar in a terminal, a line now and then in a file."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from serpent_ir.training.clock import RunClock
from serpent_ir.training.forecast import duration_text
from serpent_ir.training.restoration_module import RestorationModule
from serpent_ir.training.validation import Validation

SECONDS_BETWEEN_LINES = 30.0
SMOOTHING = 0.98


class ProgressDisplay(Callback):
    """Shows step, loss (smoothed), validation PSNR, speed and time left."""

    def __init__(self, clock: RunClock, validation: Validation) -> None:
        self.clock = clock
        self.validation = validation
        self.loss: float | None = None
        self.first_step = 0
        self.last_line = 0.0
        self.in_terminal = sys.stderr.isatty()
        self.bar = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:5.1f} %"),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
        )
        self.task_id = self.bar.add_task("starting", total=1.0)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.first_step = trainer.global_step
        self.in_terminal = self.in_terminal and trainer.is_global_zero
        if self.in_terminal:
            self.bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        assert isinstance(module, RestorationModule)
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        if math.isfinite(module.last_loss):
            before = module.last_loss if self.loss is None else self.loss
            self.loss = SMOOTHING * before + (1 - SMOOTHING) * module.last_loss
        batch_size, crop = batch[2].shape[0] * trainer.world_size, batch[2].shape[-1]
        text = self._text(step, module.recipe.total_steps, f"{batch_size} x {crop} px")
        progress = min(self.clock.progress(step), 1.0)
        if self.in_terminal:
            self.bar.update(self.task_id, completed=progress, description=text)
        elif time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES or trainer.should_stop or progress >= 1:
            self.last_line = time.monotonic()
            print(f"{100 * progress:5.1f} %  {text}", file=sys.stderr, flush=True)

    def _text(self, step: int, steps: int, batch: str) -> str:
        parts = [f"step {step}/{steps}", batch]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.validation.last is not None:
            best = "" if self.validation.best is None else f" (best {self.validation.best:.2f})"
            parts.append(f"val {self.validation.last:.2f} dB{best}")
        if self.clock.session > 0:
            parts.append(f"{(step - self.first_step) / self.clock.session:.2f} steps/s")
        left = self.clock.seconds_left(step)
        if left is not None:
            parts.append(f"{duration_text(left)} left")
        return " | ".join(parts)

    def teardown(self, *_: Any, **__: Any) -> None:
        if self.in_terminal:
            self.bar.stop()

    on_exception = teardown
