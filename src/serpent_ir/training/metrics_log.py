"""The measured course of a run, as one CSV file."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from serpent_ir.training.clock import RunClock
from serpent_ir.training.restoration_module import RestorationModule
from serpent_ir.training.validation import Validation

COLUMNS = ["step", "seconds", "loss", "val_psnr", "lr", "crop", "batch", "skipped_steps"]


class MetricsLog(Callback):
    """Appends a line every `every` steps (loss: mean of the finite ones since the line before) and at each validation.

    On resuming, lines beyond the checkpoint are dropped: those steps are taken again.
    """

    def __init__(self, path: Path, clock: RunClock, validation: Validation, every: int) -> None:
        self.path = path
        self.clock = clock
        self.validation = validation
        self.every = every
        self.losses: list[float] = []

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        kept: list[dict[str, str]] = []
        if self.path.exists() and trainer.global_step > 0:
            with self.path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= trainer.global_step]
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        assert isinstance(module, RestorationModule)
        step, clean = trainer.global_step, batch[2]
        if math.isfinite(module.last_loss):
            self.losses.append(module.last_loss)
        validated = self.validation.last_step == step
        if step % self.every and not validated and not trainer.should_stop:
            return
        row = {
            "step": step,
            "seconds": f"{self.clock.elapsed:.1f}",
            "loss": f"{math.fsum(self.losses) / len(self.losses):.6f}" if self.losses else "nan",
            "val_psnr": f"{self.validation.last:.4f}" if validated else "",
            "lr": f"{module.last_rate:.3e}",
            "crop": clean.shape[-1],
            "batch": clean.shape[0],
            "skipped_steps": module.bad_steps,
        }
        self.losses.clear()
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)

    def state_dict(self) -> dict[str, list[float]]:
        return {"losses": self.losses}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self.losses = list(state["losses"])
