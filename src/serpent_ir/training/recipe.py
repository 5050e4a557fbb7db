"""What a training run is made of: one frozen dataclass, read from YAML, every field overridable by an argument."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser

from serpent_ir.data import PhotographFolder
from serpent_ir.errors import DataError, RecipeError


@dataclass(frozen=True)
class Stage:
    """One stage of progressive learning: `batch` square crops of side `crop` during `fraction` of the run."""

    crop: int
    batch: int
    fraction: float


@dataclass(frozen=True)
class Recipe:
    """All that decides a training run. Raises RecipeError, naming the field, for a value that cannot be used.

    Args:
        run: folder of the run (checkpoints, metrics, recipe, weights); made when missing.
        task: name of the degradation to undo.
        task_options: options of the task, in place of its defaults.
        model: registry name of the model.
        model_options: fields of the model's config, in place of the registry's.
        init_from: weights file (safetensors) of the same model to start from, instead of random weights.
        data: folders of clean training photographs.
        val: folders of clean validation photographs; none: no validation.
        val_images: how many of them are restored at each validation, evenly spaced over the sorted files.
        generated_images: add that many generated images to the training photographs (for trials without any), and a
            quarter as many others for validation where `val` names no folder.
        stages: progressive learning; the fractions add up to 1.
        steps: optimiser steps of the whole run.
        time_budget: wall-clock budget of the whole run over all restarts ("45m", "1h30m", "90s"); schedule and stages
            follow max(step / steps, elapsed / time_budget), so the run ends complete, within the budget.
        max_time: stop after that time with a resumable checkpoint; the schedule is not changed.
        optimizer: adam or adamw.
        lr: highest learning rate.
        betas: the optimiser's decay rates.
        weight_decay: of adamw.
        warmup: steps of linear rise of the learning rate.
        lr_end: last learning rate as a fraction of `lr`, reached by a cosine.
        clip: largest norm of the gradient; larger ones are scaled down to it.
        loss: l1, mse or charbonnier.
        ema: decay of the averaged weights, which are what is validated and saved.
        quantized_fraction: share of the training images that are clipped and rounded to 8 bits after degrading.
        precision: 32-true or bf16-mixed.
        compile: compile the model with torch.compile.
        seed: seed of the weights, the crops and the degradations.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        log_every: steps between lines of metrics.csv.
        bad_steps: after this many non-finite steps in a row, training stops with an error.
        threads: CPU threads; 0 leaves torch's choice.
        workers: processes that cut crops; 0 cuts them in the training process.
        device: auto, cpu, cuda or mps.
        resume: auto continues a run folder that holds a checkpoint of this recipe; anyway continues although the
            recipe differs; never starts afresh and replaces what is there.
    """

    run: str
    task: str
    model: str
    data: list[PhotographFolder] = field(default_factory=list)
    val: list[PhotographFolder] = field(default_factory=list)
    val_images: int = 16
    generated_images: int = 0
    task_options: dict[str, Any] = field(default_factory=dict)
    model_options: dict[str, Any] = field(default_factory=dict)
    init_from: str | None = None
    stages: list[Stage] = field(default_factory=list)
    steps: int = 10_000
    time_budget: str | None = None
    max_time: str | None = None
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warmup: int = 200
    lr_end: float = 1e-3
    clip: float = 1.0
    loss: Literal["l1", "mse", "charbonnier"] = "l1"
    ema: float = 0.999
    quantized_fraction: float = 0.5
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compile: bool = False
    seed: int = 0
    validate_every: int = 500
    checkpoint_every: int = 200
    log_every: int = 20
    bad_steps: int = 10
    threads: int = 0
    workers: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    resume: Literal["auto", "anyway", "never"] = "auto"

    def __post_init__(self) -> None:
        def need(name: str, fine: bool, expected: str) -> None:
            if not fine:
                raise RecipeError(f"recipe field {name} is {getattr(self, name)!r}", expected)

        need("data", bool(self.data) or self.generated_images > 0, "at least one folder of photographs (--data DIR)")
        need("stages", bool(self.stages), "at least one stage")
        sizes = all(stage.crop >= 1 and stage.batch >= 1 and stage.fraction > 0 for stage in self.stages)
        need("stages", sizes, "positive crop, batch and fraction in every stage")
        total = sum(stage.fraction for stage in self.stages)
        need("stages", math.isclose(total, 1.0, abs_tol=1e-3), f"fractions that add up to 1 (they give {total:g})")
        for name in ("steps", "val_images", "validate_every", "checkpoint_every", "log_every", "bad_steps"):
            need(name, getattr(self, name) >= 1, "a positive whole number")
        for name in ("generated_images", "warmup", "seed", "threads", "workers", "weight_decay"):
            need(name, getattr(self, name) >= 0, "0 or more")
        for name in ("lr", "clip"):
            need(name, 0 < getattr(self, name) < math.inf, "a positive number")
        for name in ("quantized_fraction", "lr_end"):
            need(name, 0 <= getattr(self, name) <= 1, "a number from 0 to 1")
        need("ema", 0 <= self.ema < 1, "a number from 0 to below 1")
        need("betas", all(0 <= beta < 1 for beta in self.betas), "two numbers from 0 to below 1")
        for name in ("time_budget", "max_time"):
            value = getattr(self, name)
            need(name, value is None or (_seconds(value) or 0) > 0, DURATION_FORM)

    @property
    def time_budget_seconds(self) -> float | None:
        return None if self.time_budget is None else _seconds(self.time_budget)

    @property
    def max_time_seconds(self) -> float | None:
        return None if self.max_time is None else _seconds(self.max_time)

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, as in the YAML file."""
        plain = dataclasses.asdict(self)
        plain["betas"] = list(self.betas)
        for folder in plain["data"] + plain["val"]:
            folder["shrink"] = list(folder["shrink"])
        return plain


DURATION_FORM = 'a duration such as "90s", "45m" or "1h30m"'


def _seconds(duration: str) -> float | None:
    """Seconds of "1h30m", "45m", "90s" or "90"; None when it is nothing of that form."""
    if re.fullmatch(r"\d+(\.\d+)?", duration):
        return float(duration)
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", duration)
    if not match or not duration:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 3600.0 * hours + 60.0 * minutes + seconds


def load_recipe(config: str | Path | None, arguments: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a YAML file and override its fields by command-line `arguments` (`--field value`).

    Nested fields are written with dots (`--model_options.patch_size 2`). Folders are given as `--data DIR`, several by
    repeating it; they replace those of the file. Raises RecipeError, naming the field, for an unknown one, one that is
    missing, or a value of the wrong type.
    """
    fields, folders = _split_folders(arguments)
    parser = ArgumentParser(prog="serpent train", exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Recipe)
    config_arguments = [] if config is None else ["--config", str(config)]
    folder_arguments = [f"--{name}={json.dumps(value)}" for name, value in folders.items()]
    try:
        parsed = parser.parse_args([*config_arguments, *fields, *folder_arguments])
    except ArgumentError as error:
        source = f" of {config}" if config is not None else ""
        reason = " ".join(str(error.message if hasattr(error, "message") else error).split())
        raise RecipeError(f"the recipe{source} cannot be used: {reason.rstrip('.')}") from error
    values = parsed.as_dict()
    del values["config"]
    return recipe_from_dict(values)


def recipe_from_dict(values: dict[str, Any]) -> Recipe:
    """The inverse of `Recipe.as_dict`."""
    values = dict(values)
    try:
        for name in ("data", "val"):
            values[name] = [PhotographFolder(folder["path"], tuple(folder["shrink"])) for folder in values[name]]
    except DataError as error:
        raise RecipeError(f"recipe field {name}: {error.came}", error.expected, error.remedy) from error
    values["stages"] = [Stage(**stage) for stage in values["stages"]]
    return Recipe(**{**values, "betas": tuple(values["betas"])})


def _split_folders(arguments: Sequence[str]) -> tuple[list[str], dict[str, list[dict[str, Any]]]]:
    """Take `--data DIR ...` and `--val DIR ...` out of the arguments: the rest, and the folders by field."""
    rest: list[str] = []
    folders: dict[str, list[dict[str, Any]]] = {}
    unshrunk = [1.0, 1.0]  # written out, or jsonargparse would keep the shrink of the file's folder at that place
    current: str | None = None
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            current = name if name in ("data", "val") else None
            if current is None:
                rest.append(argument)
            elif equals:
                folders.setdefault(current, []).append({"path": value, "shrink": unshrunk})
        elif current is not None:
            folders.setdefault(current, []).append({"path": argument, "shrink": unshrunk})
        else:
            rest.append(argument)
    return rest, folders
