"""Cells, their models, and measuring one in a process of its own."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import torch

from serpent_ir.efficiency import cell as cell_module
from serpent_ir.efficiency import process
from serpent_ir.efficiency.cell import (
    Cell,
    Settings,
    autocast,
    can_bound_memory,
    create,
    inputs,
    one_line,
    parse_size,
    quartiles,
    timed_again,
    training_step,
)
from serpent_ir.efficiency.process import KILLED, died, end, run_in_process
from serpent_ir.errors import DtypeError, RangeError, UnknownNameError, lacks_memory

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
        ({"device": "cpu:1"}, UnknownNameError, "cuda:1"),
    ],
)
def test_a_cell_that_cannot_be_is_named(changes: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Cell(**{"model": SMALL, "height": 8, "width": 8, **changes})


def test_a_device_has_one_name() -> None:
    names = {"cpu:0": "cpu", "mps:0": "mps", "cuda:0": "cuda", "cuda:1": "cuda:1", "cpu": "cpu"}
    assert [Cell(SMALL, 8, 8, device=given).device for given in names] == list(names.values())
    assert Cell(SMALL, 8, 8, device="cpu:0") == Cell(SMALL, 8, 8)


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


def test_a_series_is_all_but_the_size() -> None:
    assert Cell(SMALL, 8, 16).series == Cell(SMALL, 32, 32).series != Cell(SMALL, 8, 16, batch=2).series


def test_memory_is_bounded_on_linux_and_cuda() -> None:
    assert can_bound_memory(torch.device("cuda:1")) and not can_bound_memory(torch.device("mps"))
    assert can_bound_memory(torch.device("cpu")) == (sys.platform == "linux")


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


def test_autocast_that_torch_leaves_out_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell(SMALL, 8, 8, precision="bfloat16")
    with autocast(cell):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    monkeypatch.setitem(cell_module.PRECISIONS, "bfloat16", torch.float64)
    with pytest.warns(UserWarning), pytest.raises(DtypeError, match="bfloat16 on cpu"), autocast(cell):
        pass


class Runs:
    """Passes that take `seconds` each, or raise; remembers how many there were."""

    def __init__(self, *seconds: float | Exception) -> None:
        self.given: Iterator[float | Exception] = iter(seconds)
        self.count = 0

    def __call__(self) -> float:
        self.count += 1
        answer = next(self.given, 1.0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def heap_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_module.memory, "keep_what_is_freed", lambda: None)


@pytest.mark.usefixtures("heap_as_it_is")
def test_how_often_a_pass_is_timed() -> None:
    settings = Settings(threads=1, seconds=5.0, runs=8)
    assert timed_again(Runs(), 9.0, 100, settings, math.inf) == ([1.0] * 5, None)
    assert timed_again(Runs(7.0, 8.0, 9.0), 9.0, 100, settings, math.inf) == ([7.0, 8.0, 9.0], None)
    assert timed_again(Runs(*[0.1] * 9), 9.0, 100, settings, math.inf) == ([0.1] * 8, None)


@pytest.mark.usefixtures("heap_as_it_is")
def test_time_that_cannot_be_taken_leaves_what_there_is() -> None:
    settings = Settings(threads=1)
    none = RuntimeError("can't allocate memory: you tried")
    assert timed_again(Runs(none), 9.0, 0, settings, math.inf) == ([9.0], f"timing ended early: {one_line(none)}")
    assert timed_again(Runs(8.0, none), 9.0, 0, settings, math.inf)[0] == [8.0]
    with pytest.raises(RuntimeError, match="else"):
        timed_again(Runs(RuntimeError("something else")), 9.0, 0, settings, math.inf)
    late, soon = Runs(), Runs(60.0)
    assert timed_again(late, 9.0, 0, settings, time.monotonic() + 5) == (
        [9.0],
        "timing ended early, before the time limit",
    )
    assert timed_again(soon, 9.0, 0, settings, time.monotonic() + 50)[0] == [60.0], "the slowest pass tells"
    assert (late.count, soon.count) == (0, 1)


@pytest.mark.parametrize(
    "words",
    [
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.",
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "could not create a primitive",
        "terminate called after throwing an instance of 'std::bad_alloc'",
    ],
)
def test_words_for_too_little_memory(words: str) -> None:
    assert lacks_memory(RuntimeError(words)) and lacks_memory(words)
    assert lacks_memory(MemoryError()) and not lacks_memory(RuntimeError("the sizes do not agree"))


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


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_time_and_memory_on_cuda(mode: str, precision: str) -> None:
    cell = Cell("serpent-b", 128, 128, mode=mode, precision=precision, device="cuda")
    answer = run_in_process(cell, Settings(threads=1, seconds=0.1))
    assert answer["status"] == "measured", answer["reason"]
    assert answer["memory"]["baseline"] == 0 and answer["memory"]["peak"] > 4 * 3.7e6  # float32 weights at least
    assert answer["memory"]["working"] > 0 and answer["scan_backend"] == "triton"


@pytest.mark.gpu
def test_too_little_memory_on_cuda() -> None:
    answer = run_in_process(Cell("unet-32", 1024, 1024, device="cuda"), Settings(threads=1, memory_limit=2**28))
    assert answer["status"] == "out of memory", answer["reason"]


@on_linux
def test_too_little_memory_is_an_answer() -> None:
    """The image alone takes 50 MB."""
    answer = run_in_process(Cell(SMALL, 2048, 2048), Settings(threads=1, memory_limit=20_000_000))
    assert answer["status"] == "out of memory", answer
    assert set(answer) == {"status", "reason"} and answer["reason"]


def test_an_error_is_an_answer() -> None:
    answer = run_in_process(Cell("serpent-b:directions=3", 8, 8), QUICK)
    assert answer["status"] == "failed" and "directions=3" in answer["reason"]


def test_a_process_over_the_time_limit_is_ended() -> None:
    answer = run_in_process(Cell(SMALL, 8, 8), Settings(threads=1, time_limit=0.2))
    assert answer == {"status": "over the time limit", "reason": "stopped after 0.2 s"}


def test_a_process_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    monkeypatch.setattr(process, "PATIENCE", 0.2)
    command = (sys.executable, "-c", program)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stubborn:
        assert stubborn.stdout and stubborn.stdout.readline() == "\n"
        end(stubborn)
    assert stubborn.returncode == -signal.SIGKILL


def test_a_process_asks_for_huge_pages_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import json, os; print(json.dumps({'asked': os.environ['THP_MEM_ALLOC_ENABLE']}))"
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", program))
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    assert run_in_process(Cell(SMALL, 8, 8), QUICK) == {"asked": "1"}
    monkeypatch.setitem(os.environ, "THP_MEM_ALLOC_ENABLE", "0")
    assert run_in_process(Cell(SMALL, 8, 8), QUICK) == {"asked": "0"}


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
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "out of memory", KILLED),
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
