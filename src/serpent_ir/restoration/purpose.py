"""What weights are for: the degradation that they undo."""

from __future__ import annotations

import os

from serpent_ir import tasks
from serpent_ir.errors import CheckpointError, SerpentError
from serpent_ir.models import ModelCard
from serpent_ir.tasks import Degradation
from serpent_ir.tasks.task_file import is_task_file

DEFAULT_TASK = "photo"
"""What is taken to have gone wrong with an image when nobody says so: what happens to photographs at home."""


def named_task(task: str | os.PathLike[str] | Degradation | None) -> tuple[str | None, Degradation | None]:
    """The name of a task, and its degradation where the caller gives it: itself, or by a task file.

    Raises as `tasks.load_task` does.
    """
    if task is None:
        return None, None
    if isinstance(task, Degradation):
        return task.name, task
    if is_task_file(task):
        own = tasks.load_task(task)
        return own.name, own
    return os.fspath(task), None


def degradation_of(task: str, card: ModelCard | None) -> Degradation | None:
    """The degradation called `task`, which decides what form of image a model takes.

    card: of the weights. One that was trained on operators of the user's own holds them in its recipe. None for one
    that was trained on pairs of photographs, which have one size and three channels whatever the task is called, and
    for a task that only the card names. Raises UnknownNameError for a task that nobody knows, CheckpointError
    when the card's operators cannot be used.
    """
    if card is not None and card.task == task:
        recipe = card.provenance.get("recipe")
        recipe = recipe if isinstance(recipe, dict) else {}
        if any(isinstance(source, dict) and source.get("layout") == "paired" for source in recipe.get("data") or ()):
            return None
        operators = recipe.get("operators")
        if operators:
            try:
                return tasks.compose(task, operators)
            except SerpentError as error:
                raise CheckpointError(f"the weights name operators that cannot be used: {error}") from error
        if task not in tasks.list_tasks():
            return None
    return tasks.create(task)
