"""Two processes that train together end in the weights of one that has their batches together."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from serpent_ir.errors import DataError, DeviceError, RecipeError, TrainingError
from serpent_ir.models import load_model
from serpent_ir.training import Recipe, Stage, train
from serpent_ir.training import processes as processes_module
from serpent_ir.training.processes import check_devices, device_type, main, run_processes

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the processes would share one GPU")


def test_two_processes_equal_one_with_twice_the_batch(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = tiny_recipe(stages=[Stage(16, 4, 0.5), Stage(24, 2, 0.5)], generated_images=9, checkpoint_every=100)
    alone = train(dataclasses.replace(recipe, run=str(tmp_path / "one")))
    shared = train(dataclasses.replace(recipe, run=str(tmp_path / "two"), devices=2))
    assert shared.finished and shared.step == alone.step == 8
    assert shared.val_psnr == pytest.approx(alone.val_psnr, abs=1e-5)
    first, second = (
        torch.load(tmp_path / run / "last.ckpt", weights_only=True)["state_dict"] for run in ("one", "two")
    )
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=2e-6, msg=name)
    for row, other in zip(*(rows_of(tmp_path / run) for run in ("one", "two")), strict=True):
        assert [row[name] for name in ("step", "crop", "batch")] == [other[name] for name in ("step", "crop", "batch")]
        assert float(other["loss"]) == pytest.approx(float(row["loss"]), abs=2e-6)
        assert float(other["val_psnr"] or 0) == pytest.approx(float(row["val_psnr"] or 0), abs=1e-3)
    assert not any((tmp_path / "two").glob(".serpent-*"))
    assert shared.weights is not None and load_model(shared.weights)
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["command"] == sys.argv


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def program(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Let the processes run `line` in place of training."""
    monkeypatch.setattr(processes_module, "COMMAND", (sys.executable, "-c", line))


def test_an_error_in_a_process_is_raised_here(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The answer is what `main` writes when a job raises."""

    def raises(recipe: Recipe) -> dict[str, object]:
        assert sys.argv == ["serpent", "train"]
        raise DataError("no folder 'x'", "photographs")

    class Ended(Exception):
        pass

    def end(status: int) -> None:
        raise Ended(status)

    with monkeypatch.context() as patch, pytest.raises(Ended, match="1"):
        request = {"job": "it", "recipe": tiny_recipe().as_dict(), "command": ["serpent", "train"]}
        patch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))
        patch.setattr(sys, "argv", ["-c"])
        patch.setitem(processes_module.JOBS, "it", raises)
        patch.setattr(processes_module.memory, "end_with_parent", lambda: None)
        patch.setattr(os, "_exit", end)
        patch.setattr(os, "dup2", lambda *_: None)
        patch.setenv("LOCAL_RANK", "0")
        patch.setenv("NODE_RANK", "0")
        main()
    answer = capfd.readouterr().out
    program(
        monkeypatch,
        f"import os, time; time.sleep(60) if os.environ['LOCAL_RANK'] == '0' else exit(print({answer!r}) or 1)",
    )
    with pytest.raises(DataError, match="no folder 'x'; expected photographs"):
        run_processes("it", tiny_recipe(), 2)


def test_a_process_that_dies_ends_the_others(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while it is told what to do: this is more than a pipe holds."""
    monkeypatch.setattr(sys, "argv", ["x" * 200_000])
    dies = "os.kill(os.getpid(), 9) if os.environ['LOCAL_RANK'] == '1' else sys.stdin.read() and time.sleep(60)"
    program(monkeypatch, f"import os, sys, time; {dies}")
    with pytest.raises(TrainingError, match="process 1 of the 2 that train together was ended by SIGKILL"):
        run_processes("train", tiny_recipe(), 2)


def test_machines_must_know_each_other(tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RecipeError, match="nodes is 2, and MASTER_ADDR, MASTER_PORT, NODE_RANK is not set"):
        train(tiny_recipe(nodes=2, stages=[Stage(16, 2, 1.0)]))


def test_a_batch_is_shared_evenly_or_not_at_all(tiny_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match=r"stages is .* batches that 2 processes \(devices x nodes\) share evenly"):
        tiny_recipe(devices=2)


@pytest.mark.parametrize(("cuda", "mps"), [(True, False), (False, True), (False, False)])
def test_auto_is_the_device_that_there_is(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(processes_module.MPSAccelerator, "is_available", lambda: mps)
    there = "cuda" if cuda else "mps" if mps else "cpu"
    assert device_type(tiny_recipe(device="auto")) == there and device_type(tiny_recipe()) == "cpu"
    several = tiny_recipe(device="auto", devices=2, stages=[Stage(16, 2, 1.0)])
    with pytest.raises(DeviceError, match="devices is 2") if there != "cpu" else nullcontext():
        check_devices(several)


@pytest.mark.parametrize("said", ["", "hello", '{"resul', "[]"])
def test_an_answer_that_is_none_is_named(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    program(monkeypatch, f"print({said!r}, end='')")
    with pytest.raises(TrainingError, match=r"process 0 of the 1 .* ended without an answer"):
        run_processes("train", tiny_recipe(), 1)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_before_the_first_step_is_no_failure(
    tiny_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    number: signal.Signals,
    expected: type[BaseException],
) -> None:
    ready = tmp_path / "ready"
    program(monkeypatch, f"import pathlib, time; pathlib.Path({str(ready)!r}).touch(); time.sleep(60)")

    def send() -> None:
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    def leave(*_: object) -> None:
        raise SystemExit

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, leave)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    threading.Thread(target=send, daemon=True).start()
    try:
        with pytest.raises(expected):
            run_processes("train", tiny_recipe(), 1)
    finally:
        for changed, handler in before.items():
            signal.signal(changed, handler)
