"""The measured course of a run, as one CSV file and for TensorBoard."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from serpent_ir.files import replacing
from serpent_ir.training.board import Board
from serpent_ir.training.clock import RunClock
from serpent_ir.training.restoration_module import RestorationModule
from serpent_ir.training.run_folder import RunFolder
from serpent_ir.training.validation import Validation

log = logging.getLogger(__name__)

COLUMNS = ["step", "seconds", "loss", "val_psnr", "lr", "crop", "batch", "skipped_steps"]


class MetricsLog(Callback):
    """Appends a line every `every` steps (loss: mean of the finite ones since the line before) and at each validation.

    On resuming, lines beyond the checkpoint are dropped: those steps are taken again. Lines that cannot be written (the
    disk is full) wait for the next one. Of several processes that train together, the first one writes.
    """

    def __init__(self, folder: RunFolder, board: Board, clock: RunClock, validation: Validation, every: int) -> None:
        self.folder = folder
        self.path = folder.metrics
        self.board = board
        self.clock = clock
        self.validation = validation
        self.every = every
        self.losses: list[float] = []
        self.waiting: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        with self.folder.writing():
            self.board.open(trainer.global_step)
            self.rewrite(trainer.global_step)

    def rewrite(self, last: int) -> None:
        """Keep the lines up to step `last` alone."""
        kept: list[dict[str, str]] = []
        if self.path.exists() and last > 0:
            with self.path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if None not in row.values()]  # a kill can halve the last
            kept = [row for row in rows if int(row["step"]) <= last]
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
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
            "batch": clean.shape[0] * trainer.world_size,
            "skipped_steps": module.bad_steps,
        }
        self.losses.clear()
        if trainer.is_global_zero:
            self.waiting.append(row)
            self.write()
            self.board.add(row)
            if validated:
                self.board.add_panel(module, self.validation.photographs, step)

    def write(self) -> None:
        """Append the waiting lines, all or none."""
        lines = io.StringIO()
        csv.DictWriter(lines, COLUMNS).writerows(self.waiting)
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", newline="") as file:
                file.write(lines.getvalue())
        except OSError as error:
            log.warning("%s cannot be written: %s", self.path, error)
            if self.path.exists():
                os.truncate(self.path, size)
            return
        self.waiting.clear()

    def teardown(self, *_: Any, **__: Any) -> None:
        self.board.close()

    on_exception = teardown

    def state_dict(self) -> dict[str, list[float]]:
        return {"losses": self.losses}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self.losses = list(state["losses"])
