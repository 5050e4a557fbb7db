"""The weights that come with the package: `weights/{task}-{model}.safetensors`."""

from __future__ import annotations

from pathlib import Path

from serpent_ir.errors import UnknownNameError
from serpent_ir.models.checkpoint import read_card
from serpent_ir.models.published import is_published
from serpent_ir.models.registry import list_models

_FOLDER = Path(__file__).parent.parent / "weights"


def list_embedded() -> list[tuple[str, str, Path]]:
    """(task, model, file) of all weights that come with the package."""
    cards = [(read_card(path), path) for path in sorted(_FOLDER.glob("*.safetensors"))]
    return [(card.task or "", card.model, path) for card, path in cards]


def find_weights(name: str | Path | None, task: str) -> Path:
    """The weights file that `name` stands for.

    A path, or a text that ends as weights files do, is a file's. Else it is the name of embedded weights: as
    `<task>-<model>`, such as "denoise-serpent-l", whatever `task` is, or as a model for `task`; see `embedded_weights`.
    """
    if isinstance(name, Path) or (name is not None and (name.endswith(".safetensors") or is_published(name))):
        return Path(name)
    return next((path for _, _, path in list_embedded() if path.stem == name), None) or embedded_weights(task, name)


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
