"""Validation: the averaged weights restore held-out photographs, degraded the same way each time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from serpent_ir.data import Photograph, generator_for
from serpent_ir.metrics import psnr
from serpent_ir.tasks import Degradation
from serpent_ir.training.restoration_module import RestorationModule

VALIDATION_STREAM = 3


@torch.no_grad()
def mean_psnr(
    model: nn.Module, photographs: Sequence[Photograph], task: Degradation, seed: int, device: torch.device
) -> float:
    """Mean PSNR in dB over whole photographs, degraded with noise that depends on (seed, index) alone.

    Inputs are neither clipped nor quantised (the paper's protocol), outputs are clipped to [0, 1].
    """
    model.eval()
    values = []
    for index, photograph in enumerate(photographs):
        clean = photograph.pixels.unsqueeze(0).to(device).float().div_(255)
        degraded = task(clean, generator_for(device, seed, index, VALIDATION_STREAM))
        values.append(psnr(model(degraded).float().clamp(0, 1), clean).item())
    return math.fsum(values) / len(values)


class Validation(Callback):
    """Every `every` steps, measures `mean_psnr` of the averaged weights; remembers the last and the best value."""

    def __init__(self, photographs: Sequence[Photograph], every: int) -> None:
        self.photographs = photographs
        self.every = every
        self.last: float | None = None
        self.last_step: int | None = None
        self.best: float | None = None
        self.best_step: int | None = None

    def measure(self, module: RestorationModule, step: int) -> None:
        """Measure at `step`, unless there are no photographs or that was done already."""
        if not self.photographs or self.last_step == step:
            return
        self.last = mean_psnr(module.average.module, self.photographs, module.task, module.recipe.seed, module.device)
        self.last_step = step
        if self.best is None or self.last > self.best:
            self.best, self.best_step = self.last, step

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        assert isinstance(module, RestorationModule)
        if trainer.global_step % self.every == 0:
            self.measure(module, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.last, "last_step": self.last_step, "best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last, self.last_step = state["last"], state["last_step"]
        self.best, self.best_step = state["best"], state["best_step"]
