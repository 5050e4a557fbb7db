"""What a run keeps when it is killed while it writes, when a file is damaged, and when the disk is full."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from serpent_ir.errors import CheckpointError, FileWriteError
from serpent_ir.training import Recipe, train

RecipeMaker = Callable[..., Recipe]


class Killed(BaseException):
    """Stands for SIGKILL."""


def damage(path: Path) -> None:
    """Turn over a bit in the middle of a file, in the content of a tensor."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def step_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


def test_after_a_damaged_checkpoint_comes_the_one_before(
    tiny_recipe: RecipeMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = train(tiny_recipe(run=str(tmp_path / "alone")))
    run = Path(tiny_recipe().run)
    train(tiny_recipe())
    assert step_of(run / "last.ckpt") == 8 and step_of(run / "previous.ckpt") == 6
    damage(run / "last.ckpt")
    train(tiny_recipe(max_time="0.001"))
    assert (step_of(run / "last.ckpt"), step_of(run / "previous.ckpt")) == (7, 6), "the damaged one is not kept"
    damage(run / "last.ckpt")
    resumed = train(tiny_recipe())
    assert "last.ckpt cannot be read" in caplog.text and "continuing from previous.ckpt, step 6" in caplog.text
    assert alone.weights is not None and resumed.weights is not None
    first, second = load_file(alone.weights), load_file(resumed.weights)
    assert all(torch.equal(first[name], second[name]) for name in first)
    (run / "last.ckpt").write_bytes((run / "last.ckpt").read_bytes()[:1000])
    (run / "previous.ckpt").unlink()
    with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be read.*--resume never"):
        train(tiny_recipe())


@pytest.mark.parametrize("calls_before", [0, 1], ids=["before", "between"])
def test_killed_while_the_names_of_checkpoints_change(
    tiny_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch, calls_before: int
) -> None:
    """At the second checkpoint: before last.ckpt becomes previous.ckpt, or before the new one becomes last.ckpt."""
    replace, calls = os.replace, []

    def dies(source: Any, target: Any) -> None:
        if Path(source).name == "last.ckpt" or (calls and Path(target).name == "last.ckpt"):
            if len(calls) == calls_before:
                raise Killed
            calls.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(Killed):
            train(tiny_recipe())
    run = Path(tiny_recipe().run)
    assert step_of(run / ("previous.ckpt" if calls_before else "last.ckpt")) == 3
    assert train(tiny_recipe()).finished
    assert step_of(run / "last.ckpt") == 8


def no_room_for(*names: str) -> Callable[..., Any]:
    """An os.replace that finds the disk full for these names."""
    replace = os.replace

    def fails(source: Any, target: Any) -> None:
        if Path(target).name in names:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    return fails


def test_a_full_disk_ends_no_training(
    tiny_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny_recipe(checkpoint_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", no_room_for("last.ckpt", "best.safetensors"))
        assert train(recipe).finished
    run = Path(recipe.run)
    assert [f"no checkpoint at step {step}: " in caplog.text for step in (2, 4, 6, 8)] == [True] * 4
    assert "the best weights so far are not kept" in caplog.text
    assert not (run / "last.ckpt").exists() and not (run / "best.safetensors").exists()
    assert (run / "model.safetensors").exists()
    assert not list(run.glob(".serpent-*"))


def test_the_last_good_checkpoint_stays_when_the_disk_is_full(
    tiny_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit on the size of files, as a disk that fills up: checkpoints cannot be written, small files can."""
    import resource

    run = Path(tiny_recipe().run)
    train(tiny_recipe(max_time="0.001"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((run / "last.ckpt").stat().st_size // 2, hard))
    try:
        with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be written"):
            monkeypatch.setattr("serpent_ir.training.run.RunFolder.model", Path("/dev/full/model.safetensors"))
            train(tiny_recipe())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert step_of(run / "last.ckpt") == 1
    monkeypatch.undo()
    assert train(tiny_recipe()).finished


def test_lines_of_metrics_wait_for_room(tiny_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe(log_every=1)
    opened = Path.open

    def full_until_step_6(path: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if path.name == "metrics.csv" and mode == "a" and len(attempts) < 5:
            attempts.append(path)
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, mode, *arguments, **named)

    attempts: list[Path] = []
    monkeypatch.setattr(Path, "open", full_until_step_6)
    assert train(recipe).finished and len(attempts) == 5
    rows = (Path(recipe.run) / "metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, 9))


def test_a_line_that_a_kill_has_cut_is_dropped(tiny_recipe: RecipeMaker) -> None:
    recipe = tiny_recipe(log_every=1)
    train(tiny_recipe(log_every=1, max_time="0.001"))
    with (Path(recipe.run) / "metrics.csv").open("a") as file:
        file.write("1,0.3,0.68")
    assert train(recipe).finished
    rows = (Path(recipe.run) / "metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, 9))


def test_a_run_folder_that_cannot_be_made_is_named(tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileWriteError, match=r"run folder .*file/run cannot be written \(Not a directory\).*--run"):
        train(tiny_recipe(run=str(tmp_path / "file" / "run")))
