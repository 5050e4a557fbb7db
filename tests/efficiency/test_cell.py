"""Cells, their models, and measuring one in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import torch

from serpent_ir.efficiency import process
from serpent_ir.efficiency.cell import Cell, Settings, create, inputs, one_line, parse_size, quartiles, training_step
from serpent_ir.efficiency.process import died, run_in_process
from serpent_ir.errors import RangeError, UnknownNameError

SMALL = "serpent-b:embed_channels=8"
QUICK = Settings(threads=1, seconds=0.01, runs=3)

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory can be bounded and its peak reset on Linux")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"height": 0}, RangeError, "height 0"),
        ({"batch": -1}, RangeError, "batch -1"),
        ({"mode": "dreaming"}, UnknownNameError, "inference, training"),
        ({"precision": "float8"}, UnknownNameError, "bfloat16"),
        ({"device": "tpu"}, UnknownNameError, "cuda:1"),
        ({"device": "cuda:"}, UnknownNameError, "cuda:1"),
    ],
)
def test_a_cell_that_cannot_be_is_named(changes: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Cell(**{"model": SMALL, "height": 8, "width": 8, **changes})


@pytest.mark.parametrize("changes", [{"threads": 0}, {"runs": 0}, {"seconds": float("nan")}, {"time_limit": 0.0}])
def test_settings_that_cannot_be_are_named(changes: dict) -> None:
    with pytest.raises(RangeError, match=next(iter(changes))):
        Settings(**{"threads": 1, **changes})


def test_sizes() -> None:
    assert parse_size("256") == (256, 256) and parse_size("512x768") == (512, 768)
    assert Cell(SMALL, *parse_size("512x768")).size == "512x768" and Cell(SMALL, 512, 768).pixels == 393216
    for text in ("", "x", "256x", "1x2x3", "-4", "big"):
        with pytest.raises(RangeError, match="height x width"):
            parse_size(text)


def test_a_model_with_overrides() -> None:
    model = create("serpent-l:directions=1:skip=concat:depths_up=[2,2,3]", "meta")
    config = model.config
    assert (config.name, config.directions, config.skip, config.depths_up) == ("serpent-l", 1, "concat", (2, 2, 3))
    assert all(parameter.is_meta for parameter in model.parameters())
    with pytest.raises(UnknownNameError, match="legs"):
        create("serpent-b:legs=4")
    with pytest.raises(UnknownNameError, match="key=value"):
        create("serpent-b:directions")
    with pytest.raises(RangeError, match="depths_up=3"):
        create("serpent-b:depths_up=3")


def test_quartiles() -> None:
    assert quartiles([5.0, 1.0, 2.0, 4.0, 3.0]) == {"median": 3.0, "lower_quartile": 2.0, "upper_quartile": 4.0}
    assert quartiles([7.0]) == {"median": 7.0, "lower_quartile": 7.0, "upper_quartile": 7.0}


def test_a_training_step_learns() -> None:
    cell = Cell(SMALL, 16, 24, batch=2, mode="training")
    model = create(cell.model)
    image, target = inputs(model, cell, cell.height, cell.width)
    assert image.shape == target.shape == (2, 3, 16, 24)
    assert image.min() >= 0 and image.max() <= 1
    step = training_step(model, cell)
    with torch.no_grad():
        before = (model(image) - target).abs().mean()
    for _ in range(5):
        step(image, target)
    with torch.no_grad():
        assert (model(image) - target).abs().mean() < before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_line() -> None:
    assert one_line(ValueError("first\nsecond")) == "ValueError: first"
    assert one_line(MemoryError()) == "MemoryError"


@on_linux
def test_time_memory_and_backend_of_a_process() -> None:
    """What a training step of Serpent-B adds at 256 x 256 is more than its input, and far less than the process."""
    answer = run_in_process(Cell(SMALL, 256, 256, mode="training"), QUICK)
    assert answer["status"] == "measured" and answer["reason"] is None, answer
    seconds, memory = answer["seconds"], answer["memory"]
    assert seconds["runs"] == 3
    assert 0 < seconds["lower_quartile"] <= seconds["median"] <= seconds["upper_quartile"] < 60
    kept_by_autograd = 256 * 256 / 16 * 16 * 4  # bytes: one map of scale 1 at twice its 8 channels, of many
    assert 10 * kept_by_autograd < memory["working"] < 100e6
    assert 50e6 < memory["baseline"] < memory["peak"] - memory["working"]
    assert answer["scan_backend"] in ("native", "portable")


@on_linux
@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_time_and_memory_on_cuda(mode: str, precision: str) -> None:
    cell = Cell("serpent-b", 128, 128, mode=mode, precision=precision, device="cuda")
    answer = run_in_process(cell, Settings(threads=1, seconds=0.1))
    assert answer["status"] == "measured", answer["reason"]
    assert answer["memory"]["baseline"] == 0 and answer["memory"]["peak"] > 4 * 3.7e6  # float32 weights at least
    assert answer["memory"]["working"] > 0 and answer["scan_backend"] is not None


@pytest.mark.gpu
def test_too_little_memory_on_cuda() -> None:
    answer = run_in_process(Cell("unet-32", 1024, 1024, device="cuda"), Settings(threads=1, memory_limit=2**28))
    assert answer["status"] == "out of memory", answer["reason"]


def test_too_little_memory_is_an_answer() -> None:
    answer = run_in_process(Cell(SMALL, 512, 512), Settings(threads=1, memory_limit=20_000_000))
    assert answer["status"] == "out of memory", answer
    assert set(answer) == {"status", "reason"} and answer["reason"]


def test_an_error_is_an_answer() -> None:
    answer = run_in_process(Cell("serpent-b:directions=3", 8, 8), QUICK)
    assert answer["status"] == "failed" and "directions=3" in answer["reason"]


def test_a_process_over_the_time_limit_is_ended() -> None:
    answer = run_in_process(Cell(SMALL, 8, 8), Settings(threads=1, time_limit=0.2))
    assert answer == {"status": "over the time limit", "reason": "stopped after 0.2 s"}


def test_a_process_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", stubborn))
    monkeypatch.setattr(process, "PATIENCE", 0.2)
    answer = run_in_process(Cell(SMALL, 8, 8), Settings(threads=1, time_limit=1.0))
    assert answer["status"] == "over the time limit"


def test_an_interrupted_process_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = []

    def interrupted(self: subprocess.Popen[str], *arguments: object, **options: object) -> None:
        processes.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", "import time; time.sleep(60)"))
    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_in_process(Cell(SMALL, 8, 8), QUICK)
    assert [ended.returncode for ended in processes] == [-signal.SIGTERM]


@pytest.mark.parametrize(
    ("program", "status", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "out of memory", "killed"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", "failed", "SIGABRT"),
        ("raise SystemExit('no such thing')", "failed", "exit status 1: no such thing"),
        ("raise SystemExit('terminate called: not enough memory')", "out of memory", "not enough memory"),
    ],
)
def test_a_process_that_dies(program: str, status: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", program))
    answer = run_in_process(Cell(SMALL, 8, 8), QUICK)
    assert answer["status"] == status and reason in answer["reason"]


def test_no_message_is_said_to_be_none() -> None:
    assert died(3, "") == {"status": "failed", "reason": "exit status 3: no message"}
