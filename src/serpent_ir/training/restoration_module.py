"""The Lightning module: degrade a clean batch, restore it, learn from the difference, average the weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from serpent_ir.data import derived_seed
from serpent_ir.errors import TrainingError
from serpent_ir.tasks import Degradation
from serpent_ir.training.activation_checkpointing import recompute_blocks
from serpent_ir.training.average import averaged
from serpent_ir.training.clock import RunClock
from serpent_ir.training.losses import LOSSES
from serpent_ir.training.recipe import Recipe
from serpent_ir.training.schedule import learning_rate

log = logging.getLogger(__name__)

DEGRADATION_STREAM = 1
MODEL_STREAM = 2


class RestorationModule(LightningModule):
    """`model` learns to undo `task`; `average` is the exponential moving average of its weights.

    All randomness of a step is drawn from (recipe.seed, step), so that a resumed run repeats an uninterrupted one.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, task: Degradation, clock: RunClock) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = model
        self.average = averaged(model, recipe.ema)
        if recipe.activation_checkpointing:
            recompute_blocks(model)
        self.task = task
        self.clock = clock
        self.last_loss = float("nan")
        self.last_rate = float("nan")
        self.bad_steps_in_a_row = 0
        self.bad_steps = 0
        if recipe.compile:
            self.model.compile()

    def configure_optimizers(self) -> Optimizer:
        kind = torch.optim.AdamW if self.recipe.optimizer == "adamw" else torch.optim.Adam
        return kind(
            self.model.parameters(),
            lr=self.recipe.lr,
            betas=self.recipe.betas,
            weight_decay=self.recipe.weight_decay,
            # One pass over all numbers; elsewhere the default is as fast.
            fused=next(self.model.parameters()).device.type == "cpu",
        )

    def on_after_batch_transfer(self, batch: tuple[Any, ...], dataloader_idx: int) -> tuple[int, Tensor, Tensor]:
        """(step, uint8 crops) -> (step, degraded, clean), outside of any reduced precision.

        What happens to crop i of a step's batch is drawn from (seed, step, i): it does not depend on which process has
        the crop. Of pairs, (step, clean, degraded), the degraded crops are taken as they are.
        """
        step, crops, *own = batch
        clean = crops.float().div_(255)
        if own:
            return step, own[0].float().div_(255), clean
        first = self.global_rank * len(clean)
        generator = torch.Generator(clean.device)
        degraded = []
        for number, crop in enumerate(clean.split(1), first):
            generator.manual_seed(derived_seed(self.recipe.seed, step, number, DEGRADATION_STREAM))
            degraded.append(self.task(crop, generator, self.recipe.quantized_fraction))
        return step, torch.cat(degraded), clean

    def on_train_batch_start(self, batch: tuple[int, Tensor, Tensor], batch_idx: int) -> None:
        step = batch[0]
        self.last_rate = learning_rate(self.recipe, step, self.clock.progress(step))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.last_rate

    def training_step(self, batch: tuple[int, Tensor, Tensor], batch_idx: int) -> Tensor:
        step, degraded, clean = batch
        torch.manual_seed(derived_seed(self.recipe.seed, step, MODEL_STREAM))
        loss = LOSSES[self.recipe.loss](self.model(degraded), clean)
        self.last_loss = self.trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean").item()
        return loss

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        """Clip the gradient; drop it, so that the step changes nothing, when it or the loss is not finite."""
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        if math.isfinite(norm) and math.isfinite(self.last_loss):
            self.bad_steps_in_a_row = 0
            return
        optimizer.zero_grad(set_to_none=True)
        self.bad_steps += 1
        self.bad_steps_in_a_row += 1
        log.warning("step %d skipped: loss %g, gradient norm %g", self.global_step, self.last_loss, norm.item())
        if self.bad_steps_in_a_row >= self.recipe.bad_steps:
            raise TrainingError(
                f"{self.bad_steps_in_a_row} steps in a row had a loss or gradient that is not finite",
                remedy="Lower the learning rate (--lr), lengthen the warm-up (--warmup), or use --precision 32-true.",
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["bad_steps"] = (self.bad_steps, self.bad_steps_in_a_row)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.bad_steps, self.bad_steps_in_a_row = checkpoint["bad_steps"]

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if not self.bad_steps_in_a_row:
            self.average.update_parameters(self.model)
