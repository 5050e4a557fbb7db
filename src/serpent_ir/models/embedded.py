"""The weights that come with the package: `weights/{task}-{model}.safetensors`."""

from __future__ import annotations

import os
from pathlib import Path

from serpent_ir.errors import UnknownNameError
from serpent_ir.models.checkpoint import read_card
from serpent_ir.models.registry import list_models

_FOLDER = Path(__file__).parent.parent / "weights"


def list_embedded() -> list[tuple[str, str, Path]]:
    """(task, model, file) of all weights that come with the package."""
    cards = [(read_card(path), path) for path in sorted(_FOLDER.glob("*.safetensors"))]
    return [(card.task or "", card.model, path) for card, path in cards]


def embedded_or_file(name: str | os.PathLike[str]) -> Path:
    """The embedded weights of the name `<task>-<model>`, such as "denoise-serpent-l"; any other name is a file's."""
    return next((path for _, _, path in list_embedded() if path.stem == os.fspath(name)), Path(name))


def embedded_weights(task: str, model: str | None = None) -> Path:
    """The file with the embedded weights for a task and a model; None: the first in the order of the registry.

    Raises `UnknownNameError` when there is none.
    """
    embedded = list_embedded()
    for name in list_models() if model is None else [model]:
        for of_task, of_model, path in embedded:
            if (of_task, of_model) == (task, name):
                return path
    there = ", ".join(f"{of_task} with {of_model}" for of_task, of_model, _ in embedded) or "none at all"
    wanted = f"task {task!r}" if model is None else f"task {task!r} with model {model!r}"
    raise UnknownNameError(f"no embedded weights for {wanted}", f"one of: {there}", "Or name a weights file.")
