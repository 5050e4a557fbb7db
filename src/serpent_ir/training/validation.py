"""Validation: the averaged weights restore held-out photographs, degraded the same way each time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from serpent_ir.data import Photograph, content_key, generator_for
from serpent_ir.metrics import capped_psnr
from serpent_ir.tasks import Degradation
from serpent_ir.training.clock import RunClock
from serpent_ir.training.restoration_module import RestorationModule

log = logging.getLogger(__name__)

VALIDATION_STREAM = 3


def degraded_pair(photograph: Photograph, task: Degradation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What the model sees of a photograph, (1, channels, H, W), and the photograph, (1, 3, H, W).

    Both are on the generator's device. The input is neither clipped nor quantised (the paper's protocol); that of a
    pair is taken as it is.
    """
    clean = photograph.pixels.unsqueeze(0).to(generator.device).float().div_(255)
    if photograph.degraded is not None:
        return photograph.degraded.unsqueeze(0).to(generator.device).float().div_(255), clean
    return task(clean, generator), clean


@torch.no_grad()
def psnr_values(
    restore: Callable[[Tensor], Tensor],
    photographs: Sequence[Photograph],
    task: Degradation,
    seed: int,
    device: torch.device,
    rank: int = 0,
    processes: int = 1,
) -> Tensor:
    """PSNR in dB (`capped_psnr`) of each whole photograph, float64 (photographs,); outputs are clipped to [0, 1].

    Each is degraded with noise that depends on (seed, its index) alone. Of several processes each restores its share;
    the values of the others are 0, so that the sum over all processes has them all.
    """
    values = torch.zeros(len(photographs), dtype=torch.float64)
    for index in range(rank, len(photographs), processes):
        generator = generator_for(device, seed, index, VALIDATION_STREAM)
        degraded, clean = degraded_pair(photographs[index], task, generator)
        values[index] = capped_psnr(restore(degraded).float().clamp(0, 1), clean).item()
    return values


def unrestored(degraded: Tensor) -> Tensor:
    """The degraded image itself, without its mask."""
    return degraded[:, :3]


class Validation(Callback):
    """Every `every` steps and at the end, measures the averaged weights' mean PSNR; remembers the last and the best."""

    def __init__(self, photographs: Sequence[Photograph], every: int, clock: RunClock) -> None:
        self.photographs = photographs
        self.key = content_key(photographs)
        self.every = every
        self.clock = clock
        self.degraded: float | None = None
        """Mean PSNR of the degraded photographs themselves."""
        self.last: float | None = None
        self.last_step: int | None = None
        self.best: float | None = None
        self.best_step: int | None = None
        self.best_before: tuple[float | None, int | None] = (None, None)

    def measure(self, module: RestorationModule, step: int, rank: int = 0, processes: int = 1) -> None:
        """Measure at `step`, unless there are no photographs or that was done already."""
        if not self.photographs or self.last_step == step:
            return
        self.last = self.mean_psnr(module, module.average.module.eval(), rank, processes)
        self.last_step = step
        if self.best is None or self.last > self.best:
            self.best_before = self.best, self.best_step
            self.best, self.best_step = self.last, step

    def mean_psnr(
        self, module: RestorationModule, restore: Callable[[Tensor], Tensor], rank: int, processes: int
    ) -> float:
        """Mean PSNR in dB over all photographs; of several processes each measures its share."""
        seed, device = module.recipe.seed, module.device
        values = psnr_values(restore, self.photographs, module.task, seed, device, rank, processes)
        if processes > 1:
            together = values.to(device)
            torch.distributed.all_reduce(together)
            values = together.cpu()
        return values.mean().item()

    def forget_best(self) -> None:
        """Take back that the last measurement was the best: its weights could not be kept."""
        self.best, self.best_step = self.best_before

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, RestorationModule)
        if self.photographs:
            self.degraded = self.mean_psnr(module, unrestored, trainer.global_rank, trainer.world_size)
            log.info("validation: %d photographs, %.2f dB as degraded", len(self.photographs), self.degraded)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        assert isinstance(module, RestorationModule)
        step = trainer.global_step
        if step % self.every == 0 or self.clock.progress(step) >= 1:
            self.measure(module, step, trainer.global_rank, trainer.world_size)

    def state_dict(self) -> dict[str, Any]:
        best = {"best": self.best, "best_step": self.best_step}
        known = {"photographs": self.key, "degraded": self.degraded}
        return {**known, "last": self.last, "last_step": self.last_step, **best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Values on other photographs are dropped. Earlier versions did not note on which they were."""
        if state.get("photographs", self.key) != self.key:
            log.info("other validation photographs than before: the best weights are looked for anew")
            return
        self.degraded = state.get("degraded")  # not noted by earlier versions
        self.last, self.last_step = state["last"], state["last_step"]
        self.best, self.best_step = state["best"], state["best_step"]
