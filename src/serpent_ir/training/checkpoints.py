"""When checkpoints and the best weights are written, and how: whole or not at all, the one before kept.

A write that fails (a full disk, say) does not end a run: it is reported, what was there stays, and the next checkpoint
is tried again. Only weights that cannot be written at the end of the run are an error.
"""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import TorchCheckpointIO

from serpent_ir.errors import CheckpointError
from serpent_ir.files import replacing
from serpent_ir.training.restoration_module import RestorationModule
from serpent_ir.training.run_folder import RunFolder
from serpent_ir.training.validation import Validation
from serpent_ir.training.weights_file import save_weights

log = logging.getLogger(__name__)


class CheckpointFiles(TorchCheckpointIO):
    """Writes `last.ckpt`; what was there before becomes `previous.ckpt`.

    Killed between the two renamings, it leaves `previous.ckpt` alone, which a run is then resumed from.
    """

    def __init__(self, folder: RunFolder, last_is_damaged: bool = False) -> None:
        """last_is_damaged: do not keep what is there as `previous.ckpt`, which is a whole one."""
        self.folder = folder
        self.last_is_damaged = last_is_damaged

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], *_: Any, **__: Any) -> None:
        """Called in one process only, when several train together. Logs a warning when the file cannot be written."""
        content = io.BytesIO()  # torch's own writer ends the process where the disk is full
        torch.save(checkpoint, content)
        try:
            with replacing(path) as temporary:
                with temporary.open("wb") as file:
                    file.write(content.getbuffer())
                    file.flush()
                    os.fsync(file.fileno())
                if Path(path).exists() and not self.last_is_damaged:
                    os.replace(path, self.folder.previous)
            self.last_is_damaged = False
        except OSError as error:
            log.warning("no checkpoint at step %d: %s", checkpoint["global_step"], error)


class CheckpointKeeper(Callback):
    """Writes `last.ckpt` every `every` steps and at every stop, `best.safetensors` at the best validation so far.

    The best weights come first: a checkpoint that knows of a best step never lies beside older best weights.
    """

    def __init__(self, folder: RunFolder, validation: Validation, every: int, provenance: dict[str, Any]) -> None:
        self.folder = folder
        self.validation = validation
        self.every = every
        self.provenance = provenance

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        assert isinstance(module, RestorationModule)
        step = trainer.global_step
        self.keep_best(trainer, module, step)
        if step % self.every == 0 or trainer.should_stop or step >= module.recipe.total_steps:
            trainer.save_checkpoint(self.folder.checkpoint)

    def keep_best(self, trainer: Trainer, module: RestorationModule, step: int) -> None:
        """Write the weights of `step` when its validation is the best so far."""
        if self.validation.best_step != step or not trainer.is_global_zero:
            return
        facts = {"steps": step, "val_psnr": self.validation.best, "val_input_psnr": self.validation.degraded}
        try:
            save_weights(module, self.folder.best, {**self.provenance, **facts})
        except CheckpointError as error:
            log.warning("the best weights so far are not kept: %s", error)
            self.validation.forget_best()
