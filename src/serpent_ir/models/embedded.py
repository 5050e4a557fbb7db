"""The weights that come with the package: `weights/{task}-{model}.safetensors`."""

from __future__ import annotations

from pathlib import Path

from serpent_ir.errors import UnknownNameError

_FOLDER = Path(__file__).parent.parent / "weights"


def list_embedded() -> list[tuple[str, str, Path]]:
    """(task, model, file) of all weights that come with the package."""
    found = []
    for path in sorted(_FOLDER.glob("*.safetensors")):
        task, model = path.stem.split("-", 1)
        found.append((task, model, path))
    return found


def embedded_weights(task: str, model: str) -> Path:
    """The file with the embedded weights for a task and a model; raises `UnknownNameError` when there is none."""
    found = list_embedded()
    for name, of_model, path in found:
        if (name, of_model) == (task, model):
            return path
    there = ", ".join(f"{name} with {of_model}" for name, of_model, _ in found) or "none at all"
    raise UnknownNameError(
        f"no embedded weights for task {task!r} with model {model!r}", f"one of: {there}", "Or name a weights file."
    )
