from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from serpent_ir.errors import RecipeError, TrainingError
from serpent_ir.training import Recipe, Stage, largest_batch, train
from serpent_ir.training.forecast import StepCost
from serpent_ir.training.largest_batch import largest_batches

STAGES = [Stage(16, 1, 0.5), Stage(32, 1, 0.5)]


def test_steps_that_fit_in_memory_are_predicted_on_the_cpu(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of n pixels takes 1000 n bytes beside 5 MB; 20 MB are there."""
    monkeypatch.setattr(
        largest_batch,
        "try_step",
        lambda model, recipe, crop, batch, *_: StepCost(0.0, 5_000_000 + 1000 * batch * crop**2),
    )
    monkeypatch.setattr(largest_batch.memory, "resident", lambda: 0)
    monkeypatch.setattr(largest_batch.memory, "affordable", lambda: 20_000_000)
    assert largest_batches(tiny_recipe(stages=STAGES, auto_batch=True)) == [32, 8]
    shared = tiny_recipe(stages=STAGES, auto_batch=True, devices=2)
    assert largest_batches(shared) == [16, 4], "two processes share the memory"
    monkeypatch.setattr(largest_batch.memory, "affordable", lambda: 5_000_000)
    with pytest.raises(TrainingError, match="smallest training step"):
        largest_batches(tiny_recipe(stages=STAGES, auto_batch=True))


def test_found_batches_are_noted_and_kept_on_resuming(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([[8, 2], [4, 1]])
    monkeypatch.setattr(largest_batch, "run_processes", lambda *_: {"batches": next(found)})
    recipe = tiny_recipe(stages=STAGES, auto_batch=True)
    train(tiny_recipe(stages=STAGES, auto_batch=True, max_time="0.001"))
    noted = yaml.safe_load((Path(recipe.run) / "recipe.yaml").read_text())["stages"]
    assert [stage["batch"] for stage in noted] == [8, 2]
    train(recipe)
    rows = (Path(recipe.run) / "metrics.csv").read_text().splitlines()[1:]
    assert {tuple(row.split(",")[5:7]) for row in rows} == {("16", "8"), ("32", "2")}
    with pytest.raises(RecipeError, match="batches of 8, 2; expected batches that 4 processes share evenly"):
        train(tiny_recipe(stages=STAGES, auto_batch=True, devices=4))
    with pytest.raises(RecipeError, match="auto_batch is True; expected false where several machines"):
        tiny_recipe(stages=STAGES, auto_batch=True, nodes=2)
    train(tiny_recipe(stages=STAGES, auto_batch=True, resume="never", steps=1))
    noted = yaml.safe_load((Path(recipe.run) / "recipe.yaml").read_text())["stages"]
    assert [stage["batch"] for stage in noted] == [4, 1]
