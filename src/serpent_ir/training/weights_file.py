"""The weights that a run leaves behind: the averaged ones, in half precision, with their provenance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from serpent_ir.data import Photograph
from serpent_ir.models import save_model
from serpent_ir.training.recipe import Recipe
from serpent_ir.training.restoration_module import RestorationModule


def provenance_of(recipe: Recipe, photographs: Sequence[Photograph], held_out: Sequence[Photograph]) -> dict[str, Any]:
    """The recipe and its data by name: the folders' own names without the path of the machine they lie on."""
    facts = recipe.as_dict()
    for field in ("run", "max_time", "resume"):
        del facts[field]
    for folder in facts["data"] + facts["val"]:
        folder["path"] = Path(folder["path"]).name
    if recipe.init_from is not None:
        facts["init_from"] = Path(recipe.init_from).name
    return {"recipe": facts, "training_images": len(photographs), "validation_images": len(held_out)}


def save_weights(module: RestorationModule, path: Path, provenance: dict[str, Any]) -> None:
    """Write the averaged weights as one safetensors file of float16, atomically."""
    save_model(module.average.module, path, task=module.task.name, provenance=provenance, dtype=torch.float16)
