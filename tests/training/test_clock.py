from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from serpent_ir.training import Recipe
from serpent_ir.training.clock import RunClock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr("serpent_ir.training.clock.time.monotonic", lambda: clock.seconds)
    return clock


def stops(clock: RunClock, step: int) -> bool:
    """Whether the clock wants to stop at the end of `step`."""
    trainer = SimpleNamespace(global_step=step, should_stop=False, world_size=1)
    clock.on_train_batch_end(trainer, None)  # type: ignore[arg-type]
    return trainer.should_stop


def test_progress_is_the_larger_of_steps_and_time(tiny_recipe: Callable[..., Recipe], now: SimpleNamespace) -> None:
    clock = RunClock(tiny_recipe(steps=100, time_budget="200s"), before=20.0)
    clock.on_train_batch_start()
    assert clock.progress(5) == 0.1 and clock.progress(50) == 0.5
    now.seconds += 80
    assert clock.elapsed == 20 and not stops(clock, 5), "time moves on at the end of a step"
    assert clock.elapsed == 100 and clock.progress(5) == 0.5
    assert clock.seconds_left(5) == 100
    assert clock.state_dict() == {"elapsed": 100}
    assert not stops(clock, 5)
    now.seconds += 100
    assert stops(clock, 5) and clock.progress(5) == 1.0


def test_without_a_budget_progress_is_a_function_of_the_step(
    tiny_recipe: Callable[..., Recipe], now: SimpleNamespace
) -> None:
    clock = RunClock(tiny_recipe(steps=100))
    clock.on_train_batch_start()
    now.seconds += 1e6
    assert clock.progress(25) == 0.25
    assert not stops(clock, 99) and stops(clock, 100)


def test_max_time_counts_this_session_only(tiny_recipe: Callable[..., Recipe], now: SimpleNamespace) -> None:
    clock = RunClock(tiny_recipe(steps=100, max_time="10s"), before=500.0)
    clock.on_train_batch_start()
    now.seconds += 9
    assert not stops(clock, 1)
    now.seconds += 1
    assert stops(clock, 1)
    assert clock.progress(1) == 0.01


def test_a_stop_that_was_asked_for_stays(tiny_recipe: Callable[..., Recipe], now: SimpleNamespace) -> None:
    clock = RunClock(tiny_recipe(steps=100))
    clock.on_train_batch_start()
    trainer = SimpleNamespace(global_step=1, should_stop=True, world_size=1)
    clock.on_train_batch_end(trainer, None)  # type: ignore[arg-type]
    assert trainer.should_stop
