"""The order of cells, the file, resuming and time left, with a runner that only pretends to measure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from serpent_ir.efficiency import Cell, Settings, count_gmac, count_parameters, read_profile, run_profile
from serpent_ir.efficiency.process import KILLED
from serpent_ir.efficiency.profiler import cell_seconds, seconds_left, too_large
from serpent_ir.efficiency.record import Result
from serpent_ir.errors import DataError, FileWriteError, RangeError, SerpentError, UnknownNameError
from serpent_ir.machine import describe_machine
from serpent_ir.models import create_model
from serpent_ir.ops.backends import choose

SMALL = "serpent-b:embed_channels=8"
SETTINGS = Settings(threads=1)
BACKEND = choose(torch.device("cpu")).backend
TOO_MUCH = {"status": "out of memory", "reason": "MemoryError"}
TOO_SLOW = {"status": "over the time limit", "reason": "stopped after 600 s"}


@pytest.fixture(autouse=True)
def as_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serpent_ir.efficiency.profiler.can_bound_memory", lambda device: device.type != "mps")


def measured(seconds: float = 0.5) -> dict[str, Any]:
    """The answer of a cell whose every pass took `seconds`."""
    times = {"median": seconds, "lower_quartile": seconds, "upper_quartile": seconds, "runs": 3}
    memory = {"peak": 300, "baseline": 100, "working": 150}
    return {"status": "measured", "reason": None, "seconds": times, "memory": memory, "scan_backend": BACKEND}


class Runner:
    """Answers as told for some cells, `measured()` for all others, and remembers what it was asked."""

    def __init__(self, answers: dict[Cell, Any] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[Cell] = []

    def __call__(self, cell: Cell, settings: Settings) -> dict[str, Any]:
        self.asked.append(cell)
        answer = self.answers.get(cell, measured())
        if isinstance(answer, BaseException):
            raise answer
        return answer


def squares(*sizes: int, **fields: Any) -> list[Cell]:
    return [Cell(SMALL, size, size, **fields) for size in sizes]


def test_the_file_holds_everything(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    cell = Cell(SMALL, 32, 48, batch=2)
    profile = run_profile([cell], path, SETTINGS, runner=Runner())
    content = json.loads(path.read_text())
    assert content == profile.as_json()
    assert (content["format"], content["version"]) == ("serpent-ir profile", 1)
    assert content["machine"] == {**describe_machine(), "torch_threads": 1}
    assert content["settings"] == {
        "threads": 1, "seconds": 5.0, "runs": 30, "memory_limit": None, "time_limit": 600.0
    }  # fmt: skip
    model = create_model("serpent-b", embed_channels=8)
    assert content["cells"] == [
        {
            "model": SMALL,
            "height": 32,
            "width": 48,
            "batch": 2,
            "mode": "inference",
            "precision": "float32",
            "device": "cpu",
            "parameters": count_parameters(model),
            "gmac": count_gmac(model, 32, 48),
            **measured(),
            "images_per_second": 4.0,
            "limit": None,
        }
    ]


def test_cheapest_first_and_each_once(tmp_path: Path) -> None:
    small, large = squares(32, 64)
    step, pair = replace(small, mode="training"), replace(small, batch=2)
    runner = Runner()
    run_profile([large, step, small, pair, large], tmp_path / "p.json", SETTINGS, runner=runner)
    assert runner.asked == [small, pair, step, large]


def test_counting_alone_runs_nothing(tmp_path: Path) -> None:
    path, cells, runner = tmp_path / "p.json", squares(32, 64), Runner()
    profile = run_profile(cells, path, SETTINGS, count_only=True, runner=runner)
    assert not runner.asked and {result.status for result in profile.results.values()} == {"counted"}
    run_profile(cells[:1], path, SETTINGS, runner=runner)
    assert runner.asked == cells[:1]
    profile = run_profile(cells, path, SETTINGS, count_only=True, runner=runner)
    assert [profile.results[cell].status for cell in cells] == ["measured", "counted"]


def test_larger_sizes_of_what_was_too_large_are_not_run(tmp_path: Path) -> None:
    cells = squares(32, 64, 96) + squares(64, 96, mode="training") + squares(96, precision="bfloat16")
    runner = Runner({cells[1]: TOO_MUCH, cells[3]: TOO_SLOW})
    profile = run_profile(cells, tmp_path / "p.json", SETTINGS, runner=runner)
    outcomes = [(profile.results[cell].status, profile.results[cell].reason) for cell in cells]
    assert outcomes == [
        ("measured", None),
        ("out of memory", "MemoryError"),
        ("not run", "did not fit at 64x64"),
        ("over the time limit", "stopped after 600 s"),
        ("not run", "took too long at 64x64"),
        ("measured", None),
    ]
    assert cells[2] not in runner.asked and cells[4] not in runner.asked
    assert (profile.results[cells[1]].limit, profile.results[cells[3]].limit) == (None, 600.0)
    assert profile.results[cells[2]].gmac > profile.results[cells[1]].gmac
    assert too_large(Cell(SMALL, 64, 64), profile.results.values()) is None


def test_interrupted_and_continued(tmp_path: Path) -> None:
    path, cells = tmp_path / "p.json", squares(32, 64, 96)
    with pytest.raises(KeyboardInterrupt):
        run_profile(cells, path, SETTINGS, runner=Runner({cells[1]: KeyboardInterrupt()}))
    assert list(read_profile(path).results) == cells[:1]
    runner = Runner({cells[1]: {"status": "failed", "reason": "RuntimeError: no"}})
    run_profile(cells, path, SETTINGS, runner=runner)
    assert runner.asked == cells[1:]
    again = Runner()
    profile = run_profile(cells[1:], path, replace(SETTINGS, seconds=1.0), runner=again)
    assert again.asked == [cells[1]], "what failed is tried again, and nothing else"
    assert set(profile.results) == {*cells}, "what is not asked for is kept"
    assert {result.status for result in read_profile(path).results.values()} == {"measured"}


def test_fresh_forgets(tmp_path: Path) -> None:
    path, cells, runner = tmp_path / "p.json", squares(32, 64), Runner()
    run_profile(cells, path, SETTINGS, runner=Runner())
    run_profile(cells[:1], path, SETTINGS, fresh=True, runner=runner)
    assert runner.asked == cells[:1] and list(read_profile(path).results) == cells[:1]


@pytest.mark.parametrize(
    ("answer", "first", "second", "again"),
    [
        (TOO_MUCH, {}, {}, False),
        (TOO_MUCH, {}, {"memory_limit": 10**9}, True),
        (TOO_MUCH, {"memory_limit": 10**9}, {}, True),
        (TOO_MUCH, {"memory_limit": 10**9}, {"memory_limit": 10**10}, True),
        (TOO_MUCH, {"memory_limit": 10**9}, {"memory_limit": 10**8}, False),
        (TOO_MUCH, {}, {"time_limit": 9999.0}, False),
        (TOO_SLOW, {}, {"time_limit": 9999.0}, True),
        (TOO_SLOW, {}, {"time_limit": None}, True),
        (TOO_SLOW, {}, {"time_limit": 60.0}, False),
        (TOO_SLOW, {}, {"memory_limit": 10**9}, False),
        ({"status": "out of memory", "reason": KILLED}, {}, {}, True),
    ],
)
def test_what_a_limit_decided_is_tried_again_under_a_higher_one(
    answer: dict[str, Any], first: dict[str, Any], second: dict[str, Any], again: bool, tmp_path: Path
) -> None:
    path, cells, runner = tmp_path / "p.json", squares(32, 64, 96), Runner()
    before = run_profile(cells, path, replace(SETTINGS, **first), runner=Runner({cells[1]: answer}))
    assert before.results[cells[2]].status == "not run"
    run_profile(cells, path, replace(SETTINGS, **second), count_only=True, runner=runner)
    assert read_profile(path) == before, "counting changes nothing"
    run_profile(cells, path, replace(SETTINGS, **second), runner=runner)
    assert runner.asked == (cells[1:] if again else [])


def test_another_limit_leaves_alone_what_is_not_asked_for(tmp_path: Path) -> None:
    """It does not stand in the way of larger sizes either, and is tried when it is asked for."""
    path, (small, large) = tmp_path / "p.json", squares(32, 64)
    higher, runner = replace(SETTINGS, memory_limit=10**10), Runner()
    run_profile([small], path, replace(SETTINGS, memory_limit=10**9), runner=Runner({small: TOO_MUCH}))
    profile = run_profile([large], path, higher, runner=runner)
    assert (profile.results[small].status, profile.results[small].limit) == ("out of memory", 10**9)
    run_profile([small, large], path, higher, runner=runner)
    assert runner.asked == [large, small]


def test_older_files_have_one_limit_for_all(tmp_path: Path) -> None:
    path, cells, runner = tmp_path / "p.json", squares(32), Runner()
    run_profile(cells, path, SETTINGS, runner=Runner({cells[0]: TOO_SLOW}))
    content = json.loads(path.read_text())
    del content["cells"][0]["limit"]
    path.write_text(json.dumps(content))
    assert read_profile(path).results[cells[0]].limit == 600.0
    run_profile(cells, path, SETTINGS, runner=runner)
    assert not runner.asked


def test_a_memory_limit_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    path, cells, settings = tmp_path / "p.json", squares(32, device="mps"), replace(SETTINGS, memory_limit=10**9)
    with pytest.raises(RangeError, match=r"--memory-limit on mps; .* Linux and CUDA"):
        run_profile(cells, path, settings, runner=Runner())
    assert not path.exists()
    run_profile(cells, path, settings, count_only=True, runner=Runner())


def test_other_conditions_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cells = tmp_path / "p.json", squares(32)
    run_profile(cells, path, SETTINGS, count_only=True)
    run_profile(cells, path, replace(SETTINGS, threads=2), runner=Runner())  # counting has no conditions
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"torch_threads 2 there, 3 here\. .*--fresh"):
        run_profile(cells, path, replace(SETTINGS, threads=3), runner=Runner())
    here = {**describe_machine(), "system": "Plan 9"}
    versions = {**here["versions"], "numpy": "1.0"}
    monkeypatch.setattr("serpent_ir.efficiency.profiler.describe_machine", lambda: {**here, "versions": versions})
    run_profile(cells, path, replace(SETTINGS, threads=2), runner=Runner())  # what decides no time
    versions["torch"] = "0.4.1"
    with pytest.raises(DataError, match=r"torch .* there, 0\.4\.1 here"):
        run_profile(cells, path, replace(SETTINGS, threads=2), runner=Runner())
    assert json.loads(path.read_text())["cells"] == json.loads(before)["cells"]
    run_profile(cells, path, replace(SETTINGS, threads=2), fresh=True, runner=Runner())
    assert json.loads(path.read_text())["machine"]["versions"]["torch"] == "0.4.1"


def test_another_backend_of_the_scan_is_refused_by_name(tmp_path: Path) -> None:
    path, cells = tmp_path / "p.json", squares(32, 64)
    run_profile(cells[:1], path, SETTINGS, runner=Runner({cells[0]: {**measured(), "scan_backend": "hand"}}))
    with pytest.raises(DataError, match=rf"scan on cpu hand there, {BACKEND} here"):
        run_profile(cells, path, SETTINGS, runner=Runner())
    on_mps = replace(cells[1], device="mps")
    assert on_mps in run_profile([on_mps], path, SETTINGS, runner=Runner()).results, "another device, another backend"


def test_a_file_of_another_machine_can_be_counted_into(tmp_path: Path) -> None:
    path, cells = tmp_path / "p.json", squares(32, 64)
    run_profile(cells[:1], path, SETTINGS, runner=Runner())
    content = json.loads(path.read_text())
    content["machine"]["processor"] = "Abacus 9"
    path.write_text(json.dumps(content))
    profile = run_profile(cells, path, replace(SETTINGS, threads=7), count_only=True, runner=Runner())
    after = json.loads(path.read_text())
    assert after == profile.as_json()
    assert [cell["status"] for cell in after.pop("cells")] == ["measured", "counted"]
    assert after == {name: content[name] for name in after}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not json", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "no profile"),
        (b'{"format": "holiday"}', "no profile"),
        (b'{"format": "serpent-ir profile", "version": 99}', "version 99"),
        (b'{"format": "serpent-ir profile", "version": 1, "machine": {}, "settings": {}}', "damaged"),
        (
            b'{"format": "serpent-ir profile", "version": 1, "machine": {}, "settings": {"threads": 1}, "cells": [{}]}',
            "",
        ),
    ],
)
def test_a_file_that_is_no_profile_is_left_alone(content: bytes, words: str, tmp_path: Path) -> None:
    path, runner = tmp_path / "p.json", Runner()
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{words}.*--fresh"):
        run_profile(squares(32), path, SETTINGS, runner=runner)
    assert path.read_bytes() == content and not runner.asked


@pytest.mark.parametrize(
    ("cells", "path", "error"),
    [
        (squares(32), "nowhere/p.json", FileWriteError),
        (squares(32), ".", DataError),
        ([*squares(32), Cell("hydra", 32, 32)], "p.json", UnknownNameError),
    ],
)
def test_nothing_is_measured_in_vain(cells: list[Cell], path: str, error: type[SerpentError], tmp_path: Path) -> None:
    runner = Runner()
    with pytest.raises(error):
        run_profile(cells, tmp_path / path, SETTINGS, runner=runner)
    assert not runner.asked


def test_progress(tmp_path: Path) -> None:
    """Before the first cell nothing tells the time left; afterwards cells of the same mode do."""
    cells = squares(32, 64) + squares(96, mode="training")
    started: list[tuple[Cell, int, int, bool]] = []
    finished: list[Cell] = []
    run_profile(
        cells,
        tmp_path / "p.json",
        SETTINGS,
        on_start=lambda cell, index, total, left: started.append((cell, index, total, left is None)),
        on_result=lambda result: finished.append(result.cell),
        runner=Runner(),
    )
    assert started == [(cells[0], 0, 3, True), (cells[1], 1, 3, True), (cells[2], 2, 3, True)]
    assert finished == cells


def result(gmac: float, seconds: float | None = None, **fields: Any) -> Result:
    """A result of a model and mode; measured when `seconds` of a pass are given, else still to do."""
    size = round(1000 * gmac**0.5)
    answer = {"status": "counted"} if seconds is None else measured(seconds)
    return Result(Cell(**{"model": SMALL, "height": size, "width": size, **fields}), 1, gmac, **answer)


def test_seconds_left() -> None:
    settings = Settings(threads=1, seconds=5.0, runs=30, time_limit=600.0)

    def passes(seconds: float) -> float:
        return cell_seconds(seconds, settings)

    assert passes(1.0) == 4 + 1 + 5 and passes(10.0) == 4 + 10 + 30 and passes(0.1) == pytest.approx(4 + 0.1 + 3)
    assert passes(1000.0) == 600
    assert cell_seconds(1000.0, replace(settings, time_limit=None, runs=1)) == 4 + 2 * 1000

    todo = [result(8.0), result(2.0, mode="training")]
    assert seconds_left(todo, [], settings) is None
    assert seconds_left([], [], settings) == 0
    done = [result(1.0, 1.0), result(4.0, 2.0)]
    assert seconds_left(todo, done, settings) is None, "no training step was measured"
    done.append(result(1.0, 9.0, model="serpent-b", mode="training"))
    assert seconds_left(todo, done, settings) == pytest.approx(passes(8.0 * 2 / 4) + passes(2.0 * 9 / 1))
    done.append(result(0.01, 1.0, mode="training"))
    assert seconds_left(todo[1:], done, settings) == pytest.approx(passes(2.0 * 1 / 0.01)), "the same model, though far"
    done.append(replace(result(4.0), status="out of memory"))
    assert seconds_left(todo[:1], done, settings) == 0, "it will not be run"
