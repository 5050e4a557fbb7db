"""The weights that come with the package: `weights/{task}-{model}.safetensors`."""

from __future__ import annotations

from pathlib import Path

from serpent_ir.errors import UnknownNameError
from serpent_ir.models.checkpoint import read_card

_FOLDER = Path(__file__).parent.parent / "weights"


def list_embedded() -> list[tuple[str, str, Path]]:
    """(task, model, file) of all weights that come with the package."""
    cards = [(read_card(path), path) for path in sorted(_FOLDER.glob("*.safetensors"))]
    return [(card.task or "", card.model, path) for card, path in cards]


def embedded_weights(task: str, model: str) -> Path:
    """The file with the embedded weights for a task and a model; raises `UnknownNameError` when there is none."""
    path = _FOLDER / f"{task}-{model}.safetensors"
    if path.is_file() and path.parent == _FOLDER:
        return path
    there = ", ".join(f"{name} with {of_model}" for name, of_model, _ in list_embedded()) or "none at all"
    raise UnknownNameError(
        f"no embedded weights for task {task!r} with model {model!r}", f"one of: {there}", "Or name a weights file."
    )
