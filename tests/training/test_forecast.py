from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch

from serpent_ir.errors import TrainingError
from serpent_ir.models import create_model
from serpent_ir.training import Recipe, Stage, train
from serpent_ir.training.clock import RunClock
from serpent_ir.training.forecast import StepCost, duration_text, seconds_left, try_stages, try_step

COSTS = [StepCost(1.0, None), StepCost(3.0, None)]


def test_what_is_said_before_the_first_step(
    tiny_recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        train(tiny_recipe())
    text = caplog.text
    assert "serpent-b: 0.003 M parameters, 0.00 GMAC for a crop of 24 x 24" in text
    assert "s for 2 x 16 px, " in text and "s for 1 x 24 px; memory of the process " in text
    assert "steps 1 to about 8: about 0 s" in text and "dB as degraded" in text


def test_time_left_follows_the_stages(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(steps=100, stages=[Stage(16, 4, 0.6), Stage(32, 1, 0.4)])
    assert seconds_left(recipe, RunClock(recipe), 0, COSTS) == (pytest.approx(60 + 120), 100)
    assert seconds_left(recipe, RunClock(recipe), 80, COSTS) == (pytest.approx(60), 100)


def test_a_time_budget_says_how_many_steps(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(steps=1000, stages=[Stage(16, 4, 0.5), Stage(32, 1, 0.5)], time_budget="90s")
    assert seconds_left(recipe, RunClock(recipe), 0, COSTS) == (90, 45 + 15)
    short = tiny_recipe(steps=1000, stages=recipe.stages, time_budget="0.1")
    assert seconds_left(short, RunClock(short), 0, COSTS) == (pytest.approx(0.1), 1), "one step at least"
    later = RunClock(recipe, before=45.0)
    assert seconds_left(recipe, later, 45, COSTS) == (45, 45 + 15)


def test_trying_changes_nothing_and_ends_in_time(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe()
    model = create_model(recipe.model, **recipe.model_options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    monkeypatch.setattr("serpent_ir.training.forecast.PATIENCE", 0.0)
    costs = try_stages(model, recipe, recipe.stages, 3, torch.device("cpu"))
    assert costs[0].memory and costs[1].memory is None
    assert costs[1].seconds == pytest.approx(costs[0].seconds * 24**2 / (2 * 16**2))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_too_little_memory_is_named(tiny_recipe: Callable[..., Recipe]) -> None:
    def greedy(image: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA out of memory. Tried to allocate 80 GiB")

    model = torch.nn.Identity()
    model.forward = greedy  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"8 crops of 64 x 64 pixels needs more memory.*--auto_batch"):
        try_step(model, tiny_recipe(), 64, 8, 3, torch.device("cpu"))


@pytest.mark.parametrize(
    ("seconds", "text"), [(40.4, "40 s"), (723, "12 min 03 s"), (3900, "1 h 05 min"), (273600, "3 d 04 h")]
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
