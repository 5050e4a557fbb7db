"""What a training run is made of: one frozen dataclass, read from YAML, every field overridable by an argument."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentError, ArgumentParser

from serpent_ir.data import PhotographSource
from serpent_ir.errors import DataError, RecipeError

DEFAULT_STEPS = 10_000


@dataclass(frozen=True)
class Stage:
    """One stage of progressive learning: `batch` square crops of side `crop` a step, during `fraction` of the run.

    `batch` counts the crops of all processes together, which share them evenly.
    """

    crop: int
    batch: int
    fraction: float


@dataclass(frozen=True)
class Recipe:
    """All that decides a training run. Raises RecipeError, naming the field, for a value that cannot be used.

    Args:
        run: folder of the run (checkpoints, metrics, recipe, weights); made when missing.
        task: name of the degradation to undo; with `operators`, the name to give it.
        task_options: options of the task, in place of its defaults.
        operators: a task of one's own, as a list of operators with their options (see serpent_ir.tasks.compose).
        model: registry name of the model.
        model_options: fields of the model's config, in place of the registry's. Where they leave out `in_channels`, it
            is what the task gives: 4 when the last one is a mask.
        init_from: weights of the same model to start from, instead of random ones: a file (safetensors), or the name of
            embedded ones, such as denoise-serpent-l.
        data: clean training photographs: folders, FFHQ, shards or pairs (see PhotographSource).
        val: clean validation photographs, likewise.
        held_out: where `val` names no folder, keep that many of the training photographs, evenly spaced over them, for
            validation and out of training; 0: no validation.
        val_images: how many of them are restored at each validation, evenly spaced over the sorted files.
        cache: memory decodes the training photographs once, at the start; none each time when a crop is cut; auto once
            where they fit into half of the free memory. It changes nothing else.
        generated_images: add that many generated images to the training photographs (for trials without any), and a
            quarter as many others for validation where `val` names no folder.
        stages: progressive learning; the fractions add up to 1.
        auto_batch: take the largest batches that fit in memory in place of those in `stages`, such that all stages have
            the same number of pixels a step; found at the start and noted in the run folder's recipe.
        steps: optimiser steps of the whole run; None: as many as make `epochs`, or 10 000 where that is None too.
        epochs: length of the run in passes over the training photographs, in place of `steps`; the stages' fractions
            are then fractions of the epochs.
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
        activation_checkpointing: keep only what goes into each block of the model and compute the rest once more in
            the backward pass: less memory, more time, the same gradients.
        seed: seed of the weights, the crops and the degradations.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        log_every: steps between lines of metrics.csv.
        bad_steps: after this many non-finite steps in a row, training stops with an error.
        threads: CPU threads; 0 leaves torch's choice.
        workers: processes that decode photographs and cut crops; 0 cuts them in the training process.
        device: auto, cpu, cuda or mps.
        devices: processes on this machine that train together, each on a device of its own (on the CPU: on a share of
            its cores).
        nodes: machines that train together, `devices` processes on each. The same command runs on each of them, with
            MASTER_ADDR, MASTER_PORT and NODE_RANK in the environment, or under torchrun or srun.
        resume: auto continues a run folder that holds a checkpoint of this recipe; anyway continues although the
            recipe differs; never starts afresh and replaces what is there.
    """

    run: str
    task: str
    model: str
    data: list[PhotographSource] = field(default_factory=list)
    val: list[PhotographSource] = field(default_factory=list)
    held_out: int = 0
    val_images: int = 16
    cache: Literal["auto", "memory", "none"] = "auto"
    generated_images: int = 0
    task_options: dict[str, Any] = field(default_factory=dict)
    operators: list[dict[str, Any]] = field(default_factory=list)
    model_options: dict[str, Any] = field(default_factory=dict)
    init_from: str | None = None
    stages: list[Stage] = field(default_factory=list)
    auto_batch: bool = False
    steps: int | None = None
    epochs: float | None = None
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
    activation_checkpointing: bool = False
    seed: int = 0
    validate_every: int = 500
    checkpoint_every: int = 200
    log_every: int = 20
    bad_steps: int = 10
    threads: int = 0
    workers: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    nodes: int = 1
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
        counts = ("val_images", "validate_every", "checkpoint_every", "log_every", "bad_steps")
        for name in (*counts, "devices", "nodes"):
            need(name, getattr(self, name) >= 1, "a positive whole number")
        shared = all(stage.batch % self.processes == 0 for stage in self.stages)
        need(
            "stages",
            shared or self.auto_batch,
            f"batches that {self.processes} processes (devices x nodes) share evenly",
        )
        need("auto_batch", not self.auto_batch or self.nodes == 1, "false where several machines train together")
        if self.steps is None and self.epochs is None:
            object.__setattr__(self, "steps", DEFAULT_STEPS)
        need("steps", self.steps is None or self.steps >= 1, "a positive whole number")
        need("steps", self.steps is None or self.epochs is None, f"none beside epochs ({self.epochs})")
        need("epochs", self.epochs is None or 0 < self.epochs < math.inf, "a positive number")
        need("operators", not (self.operators and self.task_options), "none beside task_options")
        paired = any(source.layout == "paired" for source in self.data)
        for name in ("operators", "task_options"):
            need(name, not (paired and getattr(self, name)), "none for pairs, which come degraded")
        for name in ("held_out", "generated_images", "warmup", "seed", "threads", "workers", "weight_decay"):
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
    def processes(self) -> int:
        """How many processes train together, on all machines."""
        return self.devices * self.nodes

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run, which is not given in epochs."""
        assert self.steps is not None, "see schedule.in_steps"
        return self.steps

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
        for name in ("data", "val"):
            plain[name] = [source.as_dict() for source in getattr(self, name)]
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
    repeating it, see `PhotographSource.from_text`; they replace those of the file, with all that it says of them. A
    length in steps replaces one in epochs, and the other way round.

    Raises RecipeError, naming the field, for an unknown one, one that is missing, or a value of the wrong type;
    DataError for what `--data` and `--val` cannot mean.
    """
    fields, folders = _split_folders(arguments)
    if config is not None:
        _refuse_code(config)
    parser = ArgumentParser(prog="serpent train", exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Recipe)
    config_arguments = [] if config is None else ["--config", str(config)]
    try:
        parsed = parser.parse_args([*config_arguments, *fields])
    except ArgumentError as error:
        source = f" of {config}" if config is not None else ""
        reason = " ".join(str(error.message if hasattr(error, "message") else error).split())
        raise RecipeError(f"the recipe{source} cannot be used: {reason.rstrip('.')}") from error
    values = {**parsed.as_dict(), **folders}
    del values["config"]
    given = {argument.partition("=")[0] for argument in fields}
    for length, other in (("steps", "epochs"), ("epochs", "steps")):
        if f"--{length}" in given and f"--{other}" not in given:
            values[other] = None
    return recipe_from_dict(values)


def _refuse_code(config: str | Path) -> None:
    """Raise RecipeError when a file says more than values: jsonargparse would import what it names.

    That is what `class_path` names, and a word in place of a source or a stage; a file named by `config` may hold both.
    """

    def refuse(fine: bool, place: str, expected: str) -> None:
        if not fine:
            raise RecipeError(f"{place} of {config}", expected)

    def look(value: Any, place: str) -> None:
        if isinstance(value, dict):
            refuse("class_path" not in value, f"class_path in {place}", "values alone")
        if isinstance(value, dict | list):
            for part in value.values() if isinstance(value, dict) else value:
                look(part, place)

    try:
        values = yaml.safe_load(Path(config).read_bytes())
    except OSError:
        return  # said when it is parsed
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"the recipe {config} is not YAML ({' '.join(str(error).split())})") from error
    look(values, "the recipe")
    if isinstance(values, dict):
        refuse("config" not in values, "field config", "all fields in one file")
        for name in ("data", "val", "stages"):
            entries = values.get(name)
            if isinstance(entries, list):
                refuse(
                    all(isinstance(entry, dict) for entry in entries), f"a word in field {name}", "entries of fields"
                )


def recipe_from_dict(values: dict[str, Any]) -> Recipe:
    """The inverse of `Recipe.as_dict`."""
    values = dict(values)
    try:
        for name in ("data", "val"):
            values[name] = [
                PhotographSource(**{**source, "shrink": tuple(source["shrink"])}) for source in values[name]
            ]
    except DataError as error:
        raise RecipeError(f"recipe field {name}: {error.came}", error.expected, error.remedy) from error
    values["stages"] = [Stage(**stage) for stage in values["stages"]]
    return Recipe(**{**values, "betas": tuple(values["betas"])})


def _split_folders(arguments: Sequence[str]) -> tuple[list[str], dict[str, list[dict[str, Any]]]]:
    """Take `--data DIR ...` and `--val DIR ...` out of the arguments: the rest, and the folders by field.

    Raises RecipeError where one of them names no folder.
    """
    rest: list[str] = []
    given: list[tuple[str, list[str]]] = []
    taking = False
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            taking = name in ("data", "val")
            if taking:
                given.append((name, [value] if equals else []))
        elif taking:
            given[-1][1].append(argument)
        if not taking:
            rest.append(argument)
    folders: dict[str, list[dict[str, Any]]] = {}
    for name, paths in given:
        if not all(paths) or not paths:
            raise RecipeError(f"option --{name} names no folder", f"--{name} DIR")
        folders.setdefault(name, []).extend(PhotographSource.from_text(path).as_dict() for path in paths)
    return rest, folders
