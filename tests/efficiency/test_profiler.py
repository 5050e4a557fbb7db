"""The order of cells, the file, resuming and time left, with a runner that only pretends to measure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serpent_ir.efficiency import count_gmac, count_parameters
from serpent_ir.efficiency.cell import Cell, Settings
from serpent_ir.efficiency.profiler import cell_seconds, run_profile, seconds_left, too_large
from serpent_ir.efficiency.record import Result, read_profile
from serpent_ir.errors import DataError, FileWriteError, SerpentError, UnknownNameError
from serpent_ir.machine import describe_machine
from serpent_ir.models import create_model

SMALL = "serpent-b:embed_channels=8"
SETTINGS = Settings(threads=1)


def measured(seconds: float = 0.5) -> dict[str, Any]:
    """The answer of a cell whose every pass took `seconds`."""
    times = {"median": seconds, "lower_quartile": seconds, "upper_quartile": seconds, "runs": 3}
    memory = {"peak": 300, "baseline": 100, "working": 150}
    return {"status": "measured", "reason": None, "seconds": times, "memory": memory, "scan_backend": "native"}


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
    answers = {
        cells[1]: {"status": "out of memory", "reason": "MemoryError"},
        cells[3]: {"status": "over the time limit", "reason": "stopped after 600 s"},
    }
    runner = Runner(answers)
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


@pytest.mark.parametrize("limit", [{"memory_limit": 10**9}, {"time_limit": 60.0}])
def test_another_limit_decides_anew(limit: dict[str, Any], tmp_path: Path) -> None:
    path, cells = tmp_path / "p.json", squares(32, 64, 96)
    too_much = Runner({cells[1]: {"status": "out of memory", "reason": "MemoryError"}})
    run_profile(cells, path, SETTINGS, runner=too_much)
    same, other = Runner(), Runner()
    run_profile(cells, path, SETTINGS, runner=same)
    run_profile(cells, path, replace(SETTINGS, **limit), runner=other)
    assert (same.asked, other.asked) == ([], cells[1:])


def test_other_conditions_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cells = tmp_path / "p.json", squares(32)
    run_profile(cells, path, SETTINGS, count_only=True)
    run_profile(cells, path, replace(SETTINGS, threads=2), runner=Runner())  # counting has no conditions
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"torch_threads 2 there, 3 here\. .*--fresh"):
        run_profile(cells, path, replace(SETTINGS, threads=3), runner=Runner())
    machine = describe_machine()
    versions = {**machine["versions"], "torch": "0.4.1"}
    monkeypatch.setattr("serpent_ir.efficiency.profiler.describe_machine", lambda: {**machine, "versions": versions})
    with pytest.raises(DataError, match=r"torch .* there, 0\.4\.1 here"):
        run_profile(cells, path, replace(SETTINGS, threads=2), runner=Runner())
    assert path.read_bytes() == before
    run_profile(cells, path, replace(SETTINGS, threads=2), fresh=True, runner=Runner())
    assert json.loads(path.read_text())["machine"]["versions"]["torch"] == "0.4.1"


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

    assert passes(1.0) == 4 + 2 + 5 and passes(10.0) == 4 + 20 + 30 and passes(0.1) == pytest.approx(4 + 0.2 + 3)
    assert passes(1000.0) == 600
    assert cell_seconds(1000.0, replace(settings, time_limit=None, runs=1)) == 4 + 3 * 1000

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
