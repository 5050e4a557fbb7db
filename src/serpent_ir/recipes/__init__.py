"""The training recipes that come along: one YAML file each, whose header says the command, the cost and the score.

Those of the paper's tables are named task-size-model, as in `deblur-256-serpent-b`; see `serpent_ir.reproduction`.
"""

from __future__ import annotations

import os
from pathlib import Path

from serpent_ir.errors import UnknownNameError

FOLDER = Path(__file__).parent


def list_recipes() -> list[str]:
    """The names that `find_recipe` accepts, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_recipe(recipe: str | os.PathLike[str]) -> Path:
    """The YAML file that `recipe` stands for: the file of that path when there is one, else a bundled recipe's name.

    Raises UnknownNameError, which lists the bundled recipes, when it is neither.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    if os.fspath(recipe) in list_recipes():
        return bundled_recipe(os.fspath(recipe))
    raise UnknownNameError(
        f"recipe {os.fspath(recipe)!r} is no file", f"a YAML file, or one of {', '.join(list_recipes())}"
    )


def bundled_recipe(name: str) -> Path:
    """The YAML file of one of `list_recipes`, whatever lies in the current folder."""
    return FOLDER / f"{name}.yaml"
