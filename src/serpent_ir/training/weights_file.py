"""The weights that a run leaves behind: the averaged ones, in half precision, with their provenance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from serpent_ir.models import digest_of_hashes, save_model
from serpent_ir.training.recipe import Recipe
from serpent_ir.training.restoration_module import RestorationModule

MOST_HASHES = 2000
"""Weights files name the content of their training photographs up to this number."""


def provenance_of(
    recipe: Recipe, training_images: int, validation_images: int, hashes: Sequence[str] | None
) -> dict[str, Any]:
    """The recipe and its data by name: the folders' own names without the path of the machine they lie on.

    hashes: content hashes of the training photographs, where they are known. They become `training_hashes` where they
    are no more than 2000; the run folder has them all, and `training_images_digest` says that they are those.
    """
    facts = recipe.as_dict()
    for field in ("run", "max_time", "resume"):
        del facts[field]
    for name in ("data", "val"):
        facts[name] = [{**source.as_dict(), "path": source.label} for source in getattr(recipe, name)]
    if recipe.init_from is not None:
        facts["init_from"] = Path(recipe.init_from).name
    known = {"recipe": facts, "training_images": training_images, "validation_images": validation_images}
    if hashes is not None:
        known["training_images_digest"] = digest_of_hashes(hashes)
        if len(hashes) <= MOST_HASHES:
            known["training_hashes"] = list(hashes)
    return known


def save_weights(module: RestorationModule, path: Path, provenance: dict[str, Any]) -> None:
    """Write the averaged weights as one safetensors file of float16, atomically."""
    save_model(module.average.module, path, task=module.task.name, provenance=provenance, dtype=torch.float16)
