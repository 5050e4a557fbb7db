"""The folder of a run: which file is what, and whether it can be continued."""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]

from serpent_ir.data.source import by_places
from serpent_ir.errors import CheckpointError, FileWriteError, RecipeError, SerpentError, TrainingError
from serpent_ir.files import TEMPORARY_NAMES, replacing, sole_use
from serpent_ir.training.recipe import Recipe

log = logging.getLogger(__name__)

MAY_CHANGE = {
    "run", "max_time", "val", "val_images", "validate_every", "checkpoint_every", "log_every", "threads", "workers",
    "cache", "device", "devices", "nodes", "activation_checkpointing", "resume",
}  # fmt: skip
"""Fields that may differ between the sessions of one run: they do not change what is learnt (see `changed_fields`)."""

PATIENCE = 5.0
"""Seconds in which the workers of a session that was killed have ended, and left the folder."""


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def checkpoint(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def previous(self) -> Path:
        """The checkpoint before the last one, for when that one is damaged."""
        return self.path / "previous.ckpt"

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

    @property
    def training_images(self) -> Path:
        """Content hashes of the photographs, where they are known."""
        return self.path / "training_images.json"

    @property
    def changes(self) -> Path:
        """What in the source differs from its commit, when it does."""
        return self.path / "changes.patch"

    @property
    def lock(self) -> Path:
        return self.path / ".train.lock"

    @property
    def events(self) -> Path:
        """The folder that TensorBoard reads."""
        return self.path / "tensorboard"

    def prepare(self, keep_run: bool) -> None:
        """Make the folder, and remove what killed sessions left half-written there.

        Unless `keep_run`, remove all that a run leaves: the checkpoints first, so that no later session can continue
        the old weights under the new recipe; the environment last, which says that the others are a run's.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        leftovers = [*self.path.glob(TEMPORARY_NAMES), *self.path.glob(f".{self.checkpoint.name}.*")]
        if not keep_run and self.has_checkpoint():
            log.info("starting afresh: the run in %s is removed", self.path)
        for path in leftovers + ([] if keep_run else self.files_of_a_run()):
            path.unlink(missing_ok=True)
        if self.events.is_dir() and not any(self.events.iterdir()):
            self.events.rmdir()

    def files_of_a_run(self) -> list[Path]:
        """All that a run leaves, in the order in which it is removed."""
        files = [self.checkpoint, self.previous, self.best, self.model, self.metrics, self.recipe, self.training_images]
        return [*files, self.changes, *self.events.glob("events.out.tfevents.*"), self.environment]

    def refuse_files_of_others(self) -> None:
        """Raise RecipeError when files lie here under the names of a run's, and no run has begun here."""
        try:
            begun = "serpent_ir" in json.loads(self.environment.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            begun = False
        found = [] if begun else [path.name for path in self.files_of_a_run() if path.exists()]
        if found:
            raise RecipeError(
                f"{self.path} holds no run, and {', '.join(found)}, which a run would replace",
                remedy="Give another --run folder, or replace what is there with --resume never.",
            )

    def has_checkpoint(self) -> bool:
        return self.checkpoint.exists() or self.previous.exists()

    @contextmanager
    def sole_use(self) -> Iterator[None]:
        """Within the block, no other process trains here. The folder is made when missing.

        Raises TrainingError when another one does, FileWriteError when nothing can be written here.
        """
        with ExitStack() as stack:
            with self.writing():
                self.path.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=self.path) as probe:
                    probe.write(bytes(4096))
                try:
                    stack.enter_context(sole_use(self.lock, PATIENCE))
                except TimeoutError as error:
                    remedy = "Wait for its end, or give another --run folder."
                    raise TrainingError(f"another process trains in {self.path}", remedy=remedy) from error
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Within the block, FileWriteError is raised in place of the system's errors."""
        try:
            yield
        except SerpentError:
            raise
        except OSError as error:
            raise FileWriteError(
                f"the run folder {self.path} cannot be written ({error.strerror or error})",
                remedy="Make room, or choose another folder with --run.",
            ) from error


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint to continue from: its file, the steps done, and the seconds that they took."""

    checkpoint: Path
    step: int
    elapsed: float


def find_resume_point(folder: RunFolder, recipe: Recipe) -> ResumePoint | None:
    """The checkpoint that `recipe.resume` lets a run continue from, or None to start afresh.

    When the last checkpoint is damaged, or a kill left none under its name, it is the one before.

    Raises RecipeError when the folder holds a run of another recipe, or no run but files that one would replace,
    CheckpointError when no checkpoint can be read.
    """
    if recipe.resume == "never":
        return None
    if not folder.has_checkpoint():
        folder.refuse_files_of_others()
        return None
    changed = changed_fields(folder, recipe)
    if changed and recipe.resume == "auto":
        raise RecipeError(
            f"{folder.path} holds a run whose recipe differs in {', '.join(changed)}",
            remedy="Give another --run folder, or continue it all the same with --resume anyway,"
            " or replace it with --resume never.",
        )
    errors = []
    for path in (folder.checkpoint, folder.previous):
        if not path.exists():
            continue
        try:
            point = read_resume_point(path)
        except CheckpointError as error:
            errors.append(error)
            continue
        if errors:
            log.warning("%s; continuing from %s, step %d", errors[0].came, path.name, point.step)
        return point
    raise errors[0]


def read_resume_point(path: Path) -> ResumePoint:
    """What a checkpoint says of itself. Raises CheckpointError when it is damaged, be it in a single bit."""
    try:
        with zipfile.ZipFile(path) as parts:
            damaged = parts.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} has another checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
        return ResumePoint(path, state["global_step"], state["callbacks"]["RunClock"]["elapsed"])
    except Exception as error:  # torch.load raises whatever the damage leads to
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {error})",
            "a checkpoint of a training run",
            "Start afresh with --resume never.",
        ) from error


def changed_fields(folder: RunFolder, recipe: Recipe) -> list[str]:
    """Names of the fields that decide what is learnt and differ from the recipe that the folder was begun with.

    A field that its recipe does not mention, because it was written by an earlier version, counts as the default.
    `val` counts when there were validation photographs and are none now, or the other way round, and others are then
    held out of training or generated for validation.
    """
    fields = dataclasses.fields(Recipe)
    defaults = {
        field.name: field.default_factory() if callable(field.default_factory) else field.default for field in fields
    }
    before = {**defaults, **recorded_recipe(folder)}
    now = recipe.as_dict()
    if before["epochs"] is not None:
        before["steps"] = None  # earlier versions noted steps beside epochs, without a meaning
    for plain in (before, now):
        plain["data"] = by_places(plain["data"])
    changed = {name for name in now if name not in MAY_CHANGE and before[name] != now[name]}
    if bool(before["val"]) != bool(now["val"]) and (recipe.held_out or recipe.generated_images):
        changed.add("val")
    return sorted(changed)


def recorded_recipe(folder: RunFolder) -> dict[str, Any]:
    """The plain form of the recipe that the folder was begun or last continued with; empty without one."""
    recipe: dict[str, Any] = yaml.safe_load(folder.recipe.read_text()) if folder.recipe.exists() else {}
    return recipe


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file so that at no time a half-written one is found under its name."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
