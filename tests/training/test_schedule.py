from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest

from serpent_ir.data import BatchKey
from serpent_ir.training import Recipe, Stage
from serpent_ir.training.clock import RunClock
from serpent_ir.training.schedule import StepKeys, in_steps, learning_rate, stage_at


def test_learning_rate_rises_then_falls_as_a_cosine(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(lr=2.0, warmup=3, lr_end=0.01)
    assert [learning_rate(recipe, step, 0.0) for step in range(5)] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert learning_rate(recipe, 100, 0.5) == pytest.approx(2.0 * (0.01 + 0.99 * 0.5))
    assert learning_rate(recipe, 100, 0.25) == pytest.approx(2.0 * (0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2))
    assert learning_rate(recipe, 100, 1.0) == learning_rate(recipe, 100, 1.7) == pytest.approx(0.02)


def test_no_warmup_starts_at_the_full_rate(tiny_recipe: Callable[..., Recipe]) -> None:
    assert learning_rate(tiny_recipe(lr=2.0, warmup=0), 0, 0.0) == 2.0


def test_stages_follow_their_fractions() -> None:
    stages = [Stage(16, 4, 0.2), Stage(32, 2, 0.3), Stage(64, 1, 0.5)]
    crops = [stage_at(stages, progress).crop for progress in (0.0, 0.19, 0.2, 0.49, 0.5, 0.99, 1.0, 3.0)]
    assert crops == [16, 16, 32, 32, 64, 64, 64, 64]


def test_keys_start_anywhere_and_are_the_same_there(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(steps=8)
    keys = list(itertools.islice(StepKeys(recipe.stages, RunClock(recipe), 0), 8))
    assert keys == [BatchKey(step, 16, 2) for step in range(4)] + [BatchKey(step, 24, 1) for step in range(4, 8)]
    assert list(itertools.islice(StepKeys(recipe.stages, RunClock(recipe), 3), 5)) == keys[3:]


def test_processes_share_each_batch(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(steps=2, stages=[Stage(16, 6, 0.5), Stage(32, 3, 0.5)])
    shares = [list(itertools.islice(StepKeys(recipe.stages, RunClock(recipe), 0, rank, 3), 2)) for rank in range(3)]
    assert shares[1] == [(0, 16, 2, 2), (1, 32, 1, 1)]
    for step, stage in enumerate(recipe.stages):
        keys = [share[step] for share in shares]
        assert [number for key in keys for number in range(key.first, key.first + key.batch)] == [*range(stage.batch)]


def test_epochs_are_passes_over_the_photographs(tiny_recipe: Callable[..., Recipe]) -> None:
    stages = [Stage(64, 32, 0.5), Stage(128, 8, 0.25), Stage(256, 2, 0.25)]
    plan = in_steps(tiny_recipe(steps=None, epochs=4, stages=stages), 1000)
    by_stage = [63, 125, 500]  # 2000, 1000 and 1000 crops, the last step of a stage perhaps more than is left
    assert plan.steps == sum(by_stage) and plan.epochs is None
    entered = [stage_at(plan.stages, step / plan.steps).batch for step in range(plan.steps)]
    assert [entered.count(batch) for batch in (32, 8, 2)] == by_stage
    assert in_steps(plan, 7) is plan
