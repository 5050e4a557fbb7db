"""The photographs that a recipe names: those to train on, and those held out."""

from __future__ import annotations

import json

from serpent_ir.data import Photograph, Photographs, generated_photographs, load_photographs, open_photographs
from serpent_ir.errors import CheckpointError, RecipeError
from serpent_ir.free_memory import affordable
from serpent_ir.training.recipe import Recipe
from serpent_ir.training.run_folder import RunFolder

SHARE_OF_MEMORY = 0.5

COUNT, HASHES = "training_images", "training_hashes"


def photographs_of(recipe: Recipe, processes: int = 1) -> tuple[Photographs, list[Photograph]]:
    """The photographs to train on, and those held out, which are decoded.

    processes: how many train on this machine and share its memory. Raises RecipeError for fields that do not agree,
    DataError for sources that cannot be used.
    """
    memory = affordable()
    share = None if memory is None else int(SHARE_OF_MEMORY * memory) // processes
    items = open_photographs(recipe.data, recipe.cache, share).items if recipe.data else []
    held_out = load_photographs(recipe.val, limit=recipe.val_images) if recipe.val else []
    if recipe.held_out and not recipe.val:
        if recipe.held_out >= len(items):
            came = f"recipe field held_out is {recipe.held_out} of {len(items)} photographs"
            raise RecipeError(came, "fewer, so that some are left to train on")
        chosen = sorted({index * len(items) // recipe.held_out for index in range(recipe.held_out)})
        held_out = Photographs([items[index] for index in chosen]).readable()
        items = [item for index, item in enumerate(items) if index not in chosen]
    if recipe.generated_images:
        extra = 0 if recipe.val else (recipe.generated_images + 3) // 4
        generated = generated_photographs(recipe.generated_images + extra, recipe.seed)
        items = [*items, *generated[: recipe.generated_images]]
        held_out += generated[recipe.generated_images :]
    training = Photographs(items)
    paired = training.paired
    if any((photograph.degraded is not None) != paired for photograph in held_out):
        kinds = ["photographs without a degraded version", "pairs"]
        came, expected = kinds if paired else kinds[::-1]
        raise RecipeError(f"recipe field val names {came}", f"{expected}, as in data")
    return training, held_out


def hashes_of_all_sessions(folder: RunFolder, photographs: Photographs, recipe: Recipe) -> list[str] | None:
    """Content hashes of what a run that is continued was trained on and is now; None where not all are known.

    Raises RecipeError when `photographs` are others than the folder's run was begun with, by their number and where it
    is known by their content, and `recipe.resume` is not `anyway`.
    """
    hashes = photographs.hashes()
    try:
        before = json.loads(folder.training_images.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return hashes
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder.training_images} cannot be read ({error})", "what training wrote") from error
    known = before.get(HASHES)
    same = before.get(COUNT, len(photographs)) == len(photographs)
    if hashes is not None and known is not None:
        same = same and set(hashes) <= set(known)
    if same:
        return hashes if known is None else known
    if recipe.resume != "anyway":
        raise RecipeError(
            f"the training photographs are others than those that the run in {folder.path} was begun with",
            remedy="Give another --run folder, or continue it all the same with --resume anyway.",
        )
    return None if hashes is None or known is None else sorted({*known, *hashes})


def photographs_text(count: int, hashes: list[str] | None) -> str:
    """The content of the run folder's `training_images.json`."""
    return json.dumps({COUNT: count, **({} if hashes is None else {HASHES: hashes})}, indent=0) + "\n"
