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


def start(clock: RunClock, step: int = 0) -> None:
    clock.on_train_batch_start(SimpleNamespace(global_step=step))  # type: ignore[arg-type]


def stops(clock: RunClock, step: int) -> bool:
    """Whether the clock wants to stop at the end of `step`."""
    trainer = SimpleNamespace(global_step=step, should_stop=False, world_size=1)
    clock.on_train_batch_end(trainer, None)  # type: ignore[arg-type]
    return trainer.should_stop


def test_progress_is_the_larger_of_steps_and_time(tiny_recipe: Callable[..., Recipe], now: SimpleNamespace) -> None:
    clock = RunClock(tiny_recipe(steps=100, time_budget="200s"), before=20.0)
    start(clock)
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
    start(clock)
    now.seconds += 1e6
    assert clock.progress(25) == 0.25
    assert not stops(clock, 99) and stops(clock, 100)


def test_time_left_after_a_resume(tiny_recipe: Callable[..., Recipe], now: SimpleNamespace) -> None:
    clock = RunClock(tiny_recipe(steps=100), before=1e5)  # a slow machine, or one that slept
    start(clock, 50)
    assert clock.seconds_left(50) is None
    now.seconds += 10
    assert not stops(clock, 60)
    assert clock.seconds_left(60) == pytest.approx(40)


def test_max_time_counts_this_session_only(tiny_recipe: Callable[..., Recipe], now: SimpleNamespace) -> None:
    clock = RunClock(tiny_recipe(steps=100, max_time="10s"), before=500.0)
    start(clock)
    now.seconds += 9
    assert not stops(clock, 1)
    now.seconds += 1
    assert stops(clock, 1)
    assert clock.progress(1) == 0.01


def test_a_stop_that_was_asked_for_stays(tiny_recipe: Callable[..., Recipe], now: SimpleNamespace) -> None:
    clock = RunClock(tiny_recipe(steps=100))
    start(clock)
    trainer = SimpleNamespace(global_step=1, should_stop=True, world_size=1)
    clock.on_train_batch_end(trainer, None)  # type: ignore[arg-type]
    assert trainer.should_stop
