"""Training of any model on any task: recipes, Lightning module, progressive learning, averaged weights, resuming."""

from __future__ import annotations

from importlib.util import find_spec

from serpent_ir.errors import MissingExtraError

for _needed in ("lightning", "jsonargparse"):
    if find_spec(_needed) is None:
        raise MissingExtraError(
            f"training needs the package {_needed!r}, which is not installed",
            remedy="Install the extra: pip install 'serpent-ir[train]'.",
        )

from serpent_ir.training.recipe import Recipe, Stage, load_recipe  # noqa: E402
from serpent_ir.training.run import TrainingResult, train  # noqa: E402

__all__ = ["Recipe", "Stage", "TrainingResult", "load_recipe", "train"]
