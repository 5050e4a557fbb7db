"""One training run from recipe to weights."""

from __future__ import annotations

import json
import logging
import signal
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml  # type: ignore[import-untyped]
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader

from serpent_ir import tasks
from serpent_ir.data import CropBatches, Photograph, generated_photographs, load_photographs
from serpent_ir.errors import DeviceError, RecipeError
from serpent_ir.models import create_model, load_model
from serpent_ir.training.clock import RunClock
from serpent_ir.training.environment import environment
from serpent_ir.training.interruption import Interruption
from serpent_ir.training.metrics_log import MetricsLog
from serpent_ir.training.progress import ProgressDisplay, duration_text
from serpent_ir.training.recipe import Recipe
from serpent_ir.training.restoration_module import RestorationModule
from serpent_ir.training.run_folder import CheckpointKeeper, ResumePoint, RunFolder, find_resume_point, write_atomically
from serpent_ir.training.schedule import StepKeys
from serpent_ir.training.validation import Validation
from serpent_ir.training.weights_file import provenance_of, save_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """`finished`: the run came to its end and `weights` is the file; otherwise it can be resumed.

    `interrupted_by`: number of the signal that stopped it, or None. `val_psnr`: in dB, None without validation.
    """

    finished: bool
    step: int
    seconds: float
    val_psnr: float | None
    weights: Path | None
    interrupted_by: int | None


def train(recipe: Recipe) -> TrainingResult:
    """Train as `recipe` says, in its run folder, from its checkpoint when there is one.

    Raises RecipeError, UnknownNameError, RangeError (recipe), DataError (folders), CheckpointError (damaged files),
    TrainingError (the loss is not finite any more), KeyboardInterrupt (a second Ctrl-C, which does not wait for the end
    of the step).
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    task = tasks.create(recipe.task, **recipe.task_options)
    model = initial_model(recipe)

    folder = RunFolder(Path(recipe.run))
    resume_point = find_resume_point(folder, recipe)
    first_step = resume_point.step if resume_point else 0

    photographs, held_out = photographs_of(recipe)
    log.info("%d training and %d validation photographs", len(photographs), len(held_out))

    provenance = provenance_of(recipe, photographs, held_out)
    clock = RunClock(recipe, resume_point.elapsed if resume_point else 0.0)
    validation = Validation(held_out, recipe.validate_every)
    keeper = CheckpointKeeper(folder, validation, recipe.checkpoint_every, provenance)
    interruption = Interruption()
    module = RestorationModule(recipe, model, task, clock)
    complete = clock.progress(first_step) >= 1
    trainer = quiet_trainer(
        recipe,
        first_step if complete else recipe.steps,
        [
            interruption,
            validation,
            clock,
            MetricsLog(folder.metrics, clock, validation, recipe.log_every),
            keeper,
            ProgressDisplay(clock, validation),
        ],
    )
    batches = DataLoader(
        CropBatches(photographs, recipe.seed),
        batch_size=None,
        sampler=StepKeys(recipe.stages, clock, first_step),
        num_workers=recipe.workers,
        worker_init_fn=leave_interrupts_to_the_parent,
        pin_memory=trainer.strategy.root_device.type == "cuda",
    )
    if resume_point:
        action = "already complete:" if complete else "resuming"
        done = f"step {first_step}, after {duration_text(resume_point.elapsed)}"
        log.info("%s %s, %s", action, folder.path, done)
    folder.prepare(keep_run=resume_point is not None)
    write_atomically(folder.recipe, yaml.safe_dump(recipe.as_dict(), sort_keys=False))
    write_atomically(folder.environment, json.dumps(environment(), indent=2) + "\n")
    fit(trainer, module, batches, resume_point)

    step = trainer.global_step
    finished = clock.progress(step) >= 1
    if finished:
        validation.measure(module, step)
        keeper.keep_best(module, step)
        facts = {"steps": step, "seconds": round(clock.elapsed), "val_psnr": validation.last}
        save_weights(module, folder.model, {**provenance, **facts})
    return TrainingResult(
        finished=finished,
        step=step,
        seconds=clock.elapsed,
        val_psnr=validation.last,
        weights=folder.model if finished else None,
        interrupted_by=interruption.signal,
    )


def fit(trainer: Trainer, module: RestorationModule, batches: DataLoader, resume_point: ResumePoint | None) -> None:
    """Run the training loop. Raises KeyboardInterrupt, where Lightning alone would end the process with status 1."""
    checkpoint = resume_point.checkpoint if resume_point else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # its tips about workers, loggers and the like
        try:
            trainer.fit(module, batches, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as error:
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise


def photographs_of(recipe: Recipe) -> tuple[list[Photograph], list[Photograph]]:
    """The training and the validation photographs, decoded."""
    training = load_photographs(recipe.data) if recipe.data else []
    held_out = load_photographs(recipe.val, limit=recipe.val_images) if recipe.val else []
    if recipe.generated_images:
        extra = 0 if recipe.val else (recipe.generated_images + 3) // 4
        generated = generated_photographs(recipe.generated_images + extra, recipe.seed)
        training += generated[: recipe.generated_images]
        held_out += generated[recipe.generated_images :]
    return training, held_out


def leave_interrupts_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; a worker that died of it would spoil the clean stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def initial_model(recipe: Recipe) -> nn.Module:
    """The recipe's model with random weights, or with those of `init_from`, which must be of the same configuration."""
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in recipe.model_options.items()}
    model = create_model(recipe.model, **options)
    if getattr(model.config, "upscale", 1) != 1:
        raise RecipeError(f"recipe field model: {recipe.model} enlarges images", "a model that keeps their size")
    if recipe.init_from is not None:
        source = load_model(recipe.init_from)
        if source.config != model.config:
            raise RecipeError(
                f"recipe field init_from: {recipe.init_from} holds {source.config}",
                f"the recipe's model {model.config}",
            )
        model.load_state_dict(source.state_dict())
    return model.train()


def quiet_trainer(recipe: Recipe, last_step: int, callbacks: list[Callback]) -> Trainer:
    """A Lightning trainer that runs the loop and leaves reporting, validation and checkpoints to `callbacks`."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("recipe field device is 'cuda', and there is no CUDA device here", "auto, cpu or mps")
    accelerator = {"cuda": "gpu"}.get(recipe.device, recipe.device)
    return Trainer(
        accelerator=accelerator,
        devices=1,
        precision=recipe.precision,
        max_steps=last_step,
        max_epochs=-1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
