from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serpent_ir.training import Recipe, board, train


def events_of(run: str) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(Path(run) / "tensorboard"))
    events.Reload()
    return events


def test_curves_and_panels_are_there_once_after_resuming(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = tiny_recipe(log_every=1)
    train(recipe)
    run = Path(recipe.run)
    (run / "last.ckpt").unlink()  # from step 6 on, steps are taken again
    train(recipe)
    events = events_of(recipe.run)
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 9))
    assert [event.step for event in events.Scalars("val_psnr")] == [4, 8]
    panels = events.Images("degraded | restored | clean")
    assert [panel.step for panel in panels] == [4, 8]
    assert (panels[0].width, panels[0].height) == (3 * 128, 128)


def test_without_tensorboard_training_says_so_once(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(board, "find_spec", lambda name: None)
    assert train(tiny_recipe()).finished
    assert caplog.text.count("no TensorBoard events: the package tensorboard is not installed") == 1
    assert not (Path(tiny_recipe().run) / "tensorboard").exists()
