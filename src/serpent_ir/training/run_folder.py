"""The folder of a run: which file is what, whether it can be continued, and atomic writing of checkpoints."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from lightning.pytorch import Callback, LightningModule, Trainer

from serpent_ir.errors import CheckpointError, RecipeError
from serpent_ir.files import TEMPORARY_NAMES, replacing
from serpent_ir.training.recipe import Recipe
from serpent_ir.training.restoration_module import RestorationModule
from serpent_ir.training.validation import Validation
from serpent_ir.training.weights_file import save_weights

log = logging.getLogger(__name__)

MAY_CHANGE = {
    "run", "max_time", "val", "val_images", "validate_every", "checkpoint_every", "log_every", "threads", "workers",
    "device", "resume",
}  # fmt: skip
"""Fields that may differ between the sessions of one run: they do not change what is learnt."""


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def checkpoint(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    def prepare(self, keep_run: bool) -> None:
        """Make the folder, and remove what killed sessions left half-written there.

        Unless `keep_run`, remove all that a run leaves: the checkpoint first, so that no later session can continue
        the old weights under the new recipe.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        leftovers = [*self.path.glob(TEMPORARY_NAMES), *self.path.glob(f".{self.checkpoint.name}.*")]
        earlier = [self.checkpoint, self.best, self.model, self.metrics, self.recipe, self.environment]
        if not keep_run and self.checkpoint.exists():
            log.info("starting afresh: the run in %s is removed", self.path)
        for path in leftovers + ([] if keep_run else earlier):
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint to continue from: its file, the steps done, and the seconds that they took."""

    checkpoint: Path
    step: int
    elapsed: float


def find_resume_point(folder: RunFolder, recipe: Recipe) -> ResumePoint | None:
    """The checkpoint that `recipe.resume` lets a run continue from, or None to start afresh.

    Raises RecipeError when the folder holds a run of another recipe, CheckpointError when its checkpoint is damaged.
    """
    if recipe.resume == "never" or not folder.checkpoint.exists():
        return None
    changed = changed_fields(folder, recipe)
    if changed and recipe.resume == "auto":
        raise RecipeError(
            f"{folder.path} holds a run whose recipe differs in {', '.join(changed)}",
            remedy="Give another --run folder, or continue it all the same with --resume anyway,"
            " or replace it with --resume never.",
        )
    try:
        state = torch.load(folder.checkpoint, map_location="cpu", weights_only=True)
        return ResumePoint(folder.checkpoint, state["global_step"], state["callbacks"]["RunClock"]["elapsed"])
    except Exception as error:  # torch.load raises whatever the damage leads to
        raise CheckpointError(
            f"{folder.checkpoint} cannot be read ({type(error).__name__}: {error})",
            "a checkpoint of a training run",
            "Start afresh with --resume never.",
        ) from error


def changed_fields(folder: RunFolder, recipe: Recipe) -> list[str]:
    """Names of the fields that decide what is learnt and differ from the recipe that the folder was begun with.

    A field that its recipe does not mention, because it was written by an earlier version, counts as the default.
    """
    before: dict[str, Any] = yaml.safe_load(folder.recipe.read_text()) if folder.recipe.exists() else {}
    now = recipe.as_dict()
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    return sorted(name for name in now if name not in MAY_CHANGE and before.get(name, defaults[name]) != now[name])


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file so that at no time a half-written one is found under its name."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
        self.keep_best(module, step)
        if step % self.every == 0 or trainer.should_stop or step >= module.recipe.steps:
            save_checkpoint(trainer, self.folder.checkpoint)

    def keep_best(self, module: RestorationModule, step: int) -> None:
        """Write the weights of `step` when its validation is the best so far."""
        if self.validation.best_step == step:
            facts = {**self.provenance, "steps": step, "val_psnr": self.validation.best}
            save_weights(module, self.folder.best, facts)


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write a resumable checkpoint, whole or not at all."""
    with replacing(path) as temporary:
        trainer.save_checkpoint(temporary)
