"""What benchmarks/weights_cbsd68.py makes of an evaluation, and of an earlier result."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("weights_cbsd68")


def gains(**means: float) -> dict[str, Any]:
    """Conditions in which the restored images have 40 dB."""
    restored = {"psnr": {"mean": 40.0}}
    return {label: {"gain": {"interval": {"mean": mean}}, "restored": restored} for label, mean in means.items()}


def test_a_difference_is_turned_round(benchmark: ModuleType) -> None:
    before = {"mean": -2.0, "low": -3.0, "high": -0.5, "images": 68}
    assert benchmark.negated(before) == {"mean": 2.0, "low": 0.5, "high": 3.0, "images": 68}


def test_what_leaves_images_as_they_are_misses_its_mark(benchmark: ModuleType) -> None:
    marks = benchmark.marks_of("jpeg", gains(better=0.001, same=0.0, worse=-0.1))
    assert [mark.met for mark in marks] == [True, False, False]
    photo = benchmark.marks_of("photo", gains(nothing=0.0, noise=1.0))
    assert [(mark.what, mark.met) for mark in photo] == [
        ("gain, noise, dB", True),
        ("PSNR where nothing was damaged, dB", True),
    ]
    assert len(benchmark.marks_of("denoise", gains(**{"sigma 25": 5.0}))) == 2


def test_tasks_that_are_kept_keep_their_machine(benchmark: ModuleType) -> None:
    old = {"machine": {"cores": 2}, "tasks": {"denoise": {"model": "serpent-l"}}}
    new = {"tasks": {"jpeg": {"machine": {"cores": 9}, "model": "serpent-l"}}}
    assert benchmark.tasks_of(old) == {"denoise": {"machine": {"cores": 2}, "model": "serpent-l"}}
    assert benchmark.tasks_of(new) == new["tasks"]
    measured = json.loads((BENCHMARKS / "results" / "weights_cbsd68.json").read_text())
    assert all(task["machine"]["cores"] for task in benchmark.tasks_of(measured).values())
