"""One training run from recipe to weights."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader

from serpent_ir.data import crop_loader
from serpent_ir.errors import CheckpointError
from serpent_ir.models import read_card
from serpent_ir.tasks import Degradation
from serpent_ir.training.board import Board
from serpent_ir.training.checkpoints import CheckpointFiles, CheckpointKeeper
from serpent_ir.training.clock import RunClock
from serpent_ir.training.environment import environment, source_changes
from serpent_ir.training.forecast import Forecast, duration_text
from serpent_ir.training.initial_model import initial_model, task_of
from serpent_ir.training.interruption import Interruption
from serpent_ir.training.largest_batch import with_largest_batches
from serpent_ir.training.metrics_log import MetricsLog
from serpent_ir.training.photographs import hashes_of_all_sessions, photographs_of, photographs_text
from serpent_ir.training.processes import check_devices, device_type, is_first, run_processes, started_by_cluster
from serpent_ir.training.progress import ProgressDisplay
from serpent_ir.training.recipe import Recipe
from serpent_ir.training.restoration_module import RestorationModule
from serpent_ir.training.run_folder import ResumePoint, RunFolder, find_resume_point, write_atomically
from serpent_ir.training.schedule import StepKeys, in_steps
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

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {**dataclasses.asdict(self), "weights": str(self.weights) if self.weights else None}


def train(recipe: Recipe) -> TrainingResult:
    """Train as `recipe` says, in its run folder, from its checkpoint when there is one.

    Raises RecipeError, UnknownNameError, RangeError (recipe), DeviceError, DataError (folders), CheckpointError
    (damaged files, or final weights that cannot be written), FileWriteError (run folder), TrainingError (the loss is
    not finite any more, too little memory, one of several processes died, or another training uses the run folder),
    KeyboardInterrupt (Ctrl-C before the first step, or a second one, which does not wait for the end of the step).
    """
    check_devices(recipe)
    recipe = with_largest_batches(recipe, RunFolder(Path(recipe.run)))
    if recipe.processes == 1 or started_by_cluster():
        return train_here(recipe)
    result = run_processes("train", recipe, recipe.devices)
    weights = Path(result["weights"]) if result["weights"] else None
    return TrainingResult(**{**result, "weights": weights})


def train_here(recipe: Recipe) -> TrainingResult:
    """`train` in this process, which may be one of several that train together."""
    set_threads(recipe)
    torch.manual_seed(recipe.seed)
    task = task_of(recipe)
    model = initial_model(recipe, task)
    folder = RunFolder(Path(recipe.run))
    with folder.sole_use() if is_first(recipe) else nullcontext():
        return run_session(recipe, folder, task, model)


def run_session(recipe: Recipe, folder: RunFolder, task: Degradation, model: nn.Module) -> TrainingResult:
    """From the start, or the last checkpoint, to the end of the run, or until it is stopped."""
    resume_point = find_resume_point(folder, recipe)
    first_step = resume_point.step if resume_point else 0

    photographs, held_out = photographs_of(recipe, recipe.devices)
    log.info("%d training and %d validation photographs", len(photographs), len(held_out))
    plan = in_steps(recipe, len(photographs))
    clock = RunClock(plan, resume_point.elapsed if resume_point else 0.0)
    complete = clock.progress(first_step) >= 1
    if resume_point:
        action = "already complete:" if complete else "resuming"
        done = f"step {first_step}, after {duration_text(resume_point.elapsed)}"
        log.info("%s %s, %s", action, folder.path, done)
        result = finished_result(folder, resume_point) if complete else None
        if result is not None:
            return result

    hashes = hashes_of_all_sessions(folder, photographs, recipe) if resume_point else photographs.hashes()
    provenance = provenance_of(recipe, len(photographs), len(held_out), hashes)
    validation = Validation(held_out, plan.validate_every, clock)
    keeper = CheckpointKeeper(folder, validation, plan.checkpoint_every, provenance)
    interruption = Interruption()
    module = RestorationModule(plan, model, task, clock)
    board = Board(folder.events)
    fell_back = resume_point is not None and resume_point.checkpoint == folder.previous
    trainer = quiet_trainer(
        plan,
        CheckpointFiles(folder, last_is_damaged=fell_back),
        first_step if complete else plan.total_steps,
        [
            interruption,
            Forecast(plan, clock),
            clock,
            validation,
            MetricsLog(folder, board, clock, validation, plan.log_every),
            keeper,
            ProgressDisplay(clock, validation),
        ],
    )
    keys = StepKeys(plan.stages, clock, first_step, trainer.global_rank, trainer.world_size)
    on_cuda = trainer.strategy.root_device.type == "cuda"
    batches = crop_loader(photographs, plan.seed, keys, plan.workers, pin_memory=on_cuda)
    if trainer.is_global_zero:
        begin(folder, recipe, photographs_text(len(photographs), hashes), keep_run=resume_point is not None)
    fit(trainer, module, batches, resume_point)

    step = trainer.global_step
    finished = clock.progress(step) >= 1
    if finished and trainer.is_global_zero:
        validation.measure(module, step)  # of a run that ended without
        keeper.keep_best(trainer, module, step)
        facts = {"steps": step, "seconds": round(clock.elapsed), "val_psnr": validation.last}
        save_weights(module, folder.model, {**provenance, **facts, "val_input_psnr": validation.degraded})
    return TrainingResult(
        finished=finished,
        step=step,
        seconds=clock.elapsed,
        val_psnr=validation.last,
        weights=folder.model if finished else None,
        interrupted_by=interruption.signal,
    )


def finished_result(folder: RunFolder, end: ResumePoint) -> TrainingResult | None:
    """That of the complete run whose last checkpoint is `end`; None when its final weights are missing, damaged or of
    an earlier end."""
    try:
        facts = read_card(folder.model).provenance
    except CheckpointError:
        return None
    if facts.get("steps") != end.step:
        return None
    return TrainingResult(True, end.step, end.elapsed, facts.get("val_psnr"), folder.model, interrupted_by=None)


def set_threads(recipe: Recipe) -> None:
    """CPU threads as the recipe says; where several processes train on the CPU, by default an even share for each."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    elif recipe.devices > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // recipe.devices))


def begin(folder: RunFolder, recipe: Recipe, photographs: str, keep_run: bool) -> None:
    """Make the run folder ready, with the recipe and what the run is made with and of. Raises FileWriteError.

    The environment comes first: it says that the other files are a run's, should this process be killed here.
    """
    with folder.writing():
        folder.prepare(keep_run)
        write_atomically(folder.environment, json.dumps(environment(), indent=2) + "\n")
        write_atomically(folder.recipe, yaml.safe_dump(recipe.as_dict(), sort_keys=False))
        write_atomically(folder.training_images, photographs)
        changes = source_changes()
        if changes is None:
            folder.changes.unlink(missing_ok=True)
        else:
            write_atomically(folder.changes, changes)


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


def quiet_trainer(recipe: Recipe, files: CheckpointFiles, last_step: int, callbacks: list[Callback]) -> Trainer:
    """A Lightning trainer that runs the loop and leaves reporting, validation and checkpoints to `callbacks`."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    plugins: list[Any] = [files]
    several = recipe.processes > 1
    if several and not started_by_cluster():
        plugins.append(LightningEnvironment())
    return Trainer(
        accelerator=device_type(recipe),
        devices=recipe.devices,
        num_nodes=recipe.nodes,
        strategy=DDPStrategy(broadcast_buffers=False) if several else "auto",
        plugins=plugins,
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
