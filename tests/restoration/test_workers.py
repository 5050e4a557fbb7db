"""Processes that restore: equal results, and what becomes of a run whose processes die, or that dies itself.

A process takes seconds to begin, so each test does much.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from files_of_a_batch import Troubled, contents, invert, save
from torch import Tensor, nn

import serpent_ir
from serpent_ir.errors import DeviceError, RestorationError, ShapeError
from serpent_ir.images import OutputOptions, read_image
from serpent_ir.restoration import Restorer, workers
from serpent_ir.restoration.batch import run_batch
from serpent_ir.restoration.outcome import FileOutcome
from serpent_ir.restoration.pipeline import Flow
from serpent_ir.restoration.plan import plan_folder

ROOT = Path(serpent_ir.__file__).parents[1]


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes begin in no time, since they are forked from one that has torch already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["serpent_ir.restoration.workers", "files_of_a_batch"])
    monkeypatch.setattr(workers, "CONTEXT", context)


def test_files_that_kill_their_process_are_left_out_and_others_are_not(tmp_path: Path, fast: None) -> None:
    names = [f"{number:02}.png" for number in range(14)]
    for number, name in enumerate(names):
        save(tmp_path / "in" / name, number / 20)
    run_batch(plan_folder(tmp_path / "in", tmp_path / "alone"), invert)
    for name in ("exit.png", "fail.png", "kill.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in" / "empty.png").touch()
    seen: list[FileOutcome] = []
    plan = plan_folder(tmp_path / "in", tmp_path / "out")
    summary = run_batch(plan, Troubled(), settings={}, workers=2, on_outcome=seen.append)
    reasons = {outcome.source.name: str(outcome.reason) for outcome in summary.failed}
    assert sorted(reasons) == ["empty.png", "exit.png", "fail.png", "kill.png"]
    assert "is empty (0 bytes)" in reasons["empty.png"] and reasons["fail.png"] == "fail.png has too much fog."
    assert reasons["exit.png"].endswith("exit.png: the process that worked on it died (exit status 7), twice")
    assert "kill.png: the process that worked on it died (killed by the system, most often" in reasons["kill.png"]
    assert len(seen) == len(plan.jobs) == len(summary.outcomes)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_an_error_of_the_program_ends_the_run(tmp_path: Path, fast: None) -> None:
    """With the traceback of the process where it happened; an error of ours is itself."""
    for name in ("a.png", "wrong.png"):
        save(tmp_path / "in" / name)
    plan = plan_folder(tmp_path / "in", tmp_path / "out")
    with pytest.raises(RuntimeError, match=r"(?s)in a worker process:.*files_of_a_batch.*ZeroDivisionError: a defect"):
        run_batch(plan, Troubled(), workers=2)
    (tmp_path / "in" / "wrong.png").rename(tmp_path / "in" / "shape.png")
    with pytest.raises(ShapeError, match="of no kind"):
        run_batch(plan_folder(tmp_path / "in", tmp_path / "out"), Troubled(), workers=2)
    assert multiprocessing.active_children() == []


def test_ctrl_c_lets_processes_finish_what_they_write(tmp_path: Path, fast: None) -> None:
    for number in range(12):
        save(tmp_path / "in" / f"slow{number:02}.png", number / 20)
    plan, seen = plan_folder(tmp_path / "in", tmp_path / "out"), list[str]()

    def interrupt(outcome: FileOutcome) -> None:
        seen.append(outcome.job.name)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(plan, Troubled(), settings={}, workers=2, on_outcome=interrupt)
    assert multiprocessing.active_children() == [] and 3 <= len(seen) < 12
    assert sorted(contents(tmp_path / "out")) == sorted(seen)
    assert len(run_batch(plan, invert, settings={}).skipped) == len(seen)


class Shared(nn.Module):
    """x / 2 where the parameters lie in shared memory and one thread computes, else nothing finite."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, image: Tensor) -> Tensor:
        fits = self.factor.is_shared() and torch.get_num_threads() == 1
        return image * (self.factor if fits else torch.nan)


def test_modules_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that other processes can import work, in one that begins afresh; others, and other devices, are refused."""
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name, 0.4)
    plan, outcomes = plan_folder(tmp_path / "in", tmp_path / "out"), list[FileOutcome]()
    restorer = Restorer(model=Shared(), device="cpu")
    workers.run_workers(plan.jobs, restorer.restore_pictures, Flow(OutputOptions()), 1, 1, outcomes.append)
    assert [outcome.reason for outcome in outcomes] == [None, None]
    assert read_image(tmp_path / "out" / "b.png").pixels.unique().tolist() == pytest.approx([0.2])

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.get_context("spawn").Process, "start", full)
        with pytest.raises(RestorationError, match=r"No space left on device.*Take 1 worker, or allow more shared"):
            restorer.restore_folder(tmp_path / "in", tmp_path / "other", workers=2)

    class Local(Shared):
        pass

    with pytest.raises(RestorationError, match=r"cannot be sent to a worker process .*Local.*Take 1 worker"):
        Restorer(model=Local(), device="cpu").restore_folder(tmp_path / "in", tmp_path / "other", workers=2)
    restorer.device = torch.device("cuda")
    with pytest.raises(DeviceError, match="2 worker processes for a model on cuda"):
        restorer.restore_folder(tmp_path / "in", tmp_path / "other", workers=2)


PROGRAM = """
import signal
import sys
from pathlib import Path
from files_of_a_batch import Troubled
from serpent_ir.restoration.batch import run_batch
from serpent_ir.restoration.plan import plan_folder

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to it
source, target, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
show = lambda outcome: print(outcome.status, flush=True)
run_batch(plan_folder(source, target), Troubled(), settings={}, workers=workers, on_outcome=show)
"""


def start(source: Path, target: Path, processes: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parents[1]}"}
    command = [sys.executable, "-c", PROGRAM, str(source), str(target), str(processes)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children_of(process: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(status.parent.name))
        except (OSError, IndexError):
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(("number", "processes"), [(signal.SIGKILL, 2), (signal.SIGINT, 1)])
def test_a_run_that_is_stopped_or_killed_goes_on(tmp_path: Path, number: int, processes: int) -> None:
    """Its processes end with it; the next run's results are those of a run left alone, and nothing else is there."""
    for index in range(12):
        save(tmp_path / "in" / f"{'soon' if index < 4 else 'wait'}{index:02}.png", index / 12, 20 + index, 30)
    process = start(tmp_path / "in", tmp_path / "out", processes)
    assert process.stdout is not None and [process.stdout.readline() for _ in range(4)] == 4 * ["done\n"]
    children = children_of(process.pid)
    assert len(children) >= processes - 1
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode != 0 and ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    end = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    if number == signal.SIGINT:
        assert not list((tmp_path / "out").glob("*.part"))
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    summary = run_batch(plan_folder(tmp_path / "in", tmp_path / "out"), invert, settings={})
    assert len(stamps) == len(summary.skipped) == 4 and len(summary.done) == 8
    assert all(outcome.target.stat().st_mtime_ns == stamps[outcome.target.name] for outcome in summary.skipped)
    run_batch(plan_folder(tmp_path / "in", tmp_path / "alone"), invert)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
