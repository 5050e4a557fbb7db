"""The task and the model that a recipe names."""

from __future__ import annotations

from torch import nn

from serpent_ir import tasks
from serpent_ir.errors import RecipeError
from serpent_ir.models import create_model, find_weights, load_model
from serpent_ir.tasks import Degradation
from serpent_ir.training.recipe import Recipe


def task_of(recipe: Recipe) -> Degradation:
    """The degradation to undo: a registered task, or the recipe's own one.

    Paired photographs come degraded: the task is then a name, and does nothing. Raises UnknownNameError and RangeError,
    naming task, operator and option.
    """
    if any(source.layout == "paired" for source in recipe.data):
        return Degradation(recipe.task, {}, ())
    if recipe.operators:
        return tasks.compose(recipe.task, recipe.operators)
    return tasks.create(recipe.task, **recipe.task_options)


def initial_model(recipe: Recipe, task: Degradation) -> nn.Module:
    """The recipe's model with random weights, or with those of `init_from`, which must be of the same configuration.

    It takes as many channels as the task gives, unless the recipe says otherwise.
    """
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in recipe.model_options.items()}
    if task.channels != 3:
        options.setdefault("in_channels", task.channels)
    model = create_model(recipe.model, **options)
    if getattr(model.config, "upscale", 1) != 1:
        raise RecipeError(f"recipe field model: {recipe.model} enlarges images", "a model that keeps their size")
    channels = getattr(model.config, "in_channels", task.channels)
    if channels != task.channels:
        raise RecipeError(
            f"recipe field model_options: in_channels is {channels}", f"the {task.channels} that the task gives"
        )
    if recipe.init_from is not None:
        source = load_model(find_weights(recipe.init_from, recipe.task))
        if source.config != model.config:
            raise RecipeError(
                f"recipe field init_from: {recipe.init_from} holds {source.config}",
                f"the recipe's model {model.config}",
            )
        model.load_state_dict(source.state_dict())
    return model.train()
