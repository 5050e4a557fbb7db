from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from serpent_ir.cli.profile import profile
from serpent_ir.efficiency import profiler
from serpent_ir.efficiency.cell import Cell, Settings
from serpent_ir.efficiency.groups import PAPER, expand
from serpent_ir.errors import DataError, DeviceError, RangeError, UnknownNameError

SMALL = "serpent-b:embed_channels=8"


@pytest.fixture(autouse=True)
def current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Cell, Settings]]:
    """What would have been measured; models of one direction are said to fail."""
    requests: list[tuple[Cell, Settings]] = []

    def pretend(cell: Cell, settings: Settings) -> dict[str, Any]:
        requests.append((cell, settings))
        if "directions=1" in cell.model:
            return {"status": "failed", "reason": "RuntimeError: no"}
        return {"status": "out of memory", "reason": "MemoryError"}

    monkeypatch.setitem(profiler.run_profile.__kwdefaults__, "runner", pretend)
    monkeypatch.setattr(profiler, "can_bound_memory", lambda device: True)
    return requests


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(profile)
    return CliRunner().invoke(app, [*arguments, "--device", "cpu"])


def cells_of(path: str = "profile.json") -> list[dict[str, Any]]:
    return json.loads(Path(path).read_text())["cells"]


def test_counts_and_prints() -> None:
    result = run(SMALL, "serpent-l", "--count-only", "--size", "256", "--size", "32x48")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["serpent-l", "256x256", "3.706", "5.57"] in rows
    assert "all values: profile.json" in result.stdout
    sizes = {(cell["model"], cell["height"], cell["width"], cell["status"]) for cell in cells_of()}
    assert sizes == {(model, *size, "counted") for model in (SMALL, "serpent-l") for size in ((256, 256), (32, 48))}


def test_measures_in_a_process_and_continues() -> None:
    Path("torch.py").write_text("raise SystemExit('what lies in the current folder is not the program')")
    arguments = (SMALL, "--size", "16", "--threads", "1", "--seconds", "0.01", "--runs", "2", "--out", "small.json")
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    (cell,) = cells_of("small.json")
    assert cell["status"] == "measured" and cell["seconds"]["runs"] == 2
    assert f"{SMALL}, 16x16, inference, float32, cpu, batch 1: " in first.stderr
    second = run(*arguments)
    assert second.stdout == first.stdout and "16x16" not in second.stderr
    assert cells_of("small.json") == [cell]


def test_every_combination_with_its_settings(asked: list[tuple[Cell, Settings]]) -> None:
    lists = ("--mode", "training", "--mode", "inference", "--precision", "bfloat16", "--batch", "1", "--batch", "2")
    limits = ("--threads", "3", "--seconds", "0.5", "--runs", "7", "--time-limit", "0", "--memory-limit", "0.5")
    result = run(SMALL, "--size", "16x24", *lists, *limits)
    assert result.exit_code == 0, "too little memory is a result: " + result.output
    assert {cell for cell, _ in asked} == {
        Cell(SMALL, 16, 24, batch, mode, "bfloat16", "cpu") for batch in (1, 2) for mode in ("training", "inference")
    }
    assert {settings for _, settings in asked} == {Settings(3, 0.5, 7, 2**29, None)}
    assert result.stdout.count("out of memory") == 4


def test_a_failure_is_in_the_exit_status(asked: list[tuple[Cell, Settings]]) -> None:
    result = run(SMALL, f"{SMALL}:directions=1", "--size", "16")
    assert result.exit_code == 1
    assert "1 of 2 failed" in result.stderr and "failed: RuntimeError: no" in result.stdout


def test_fresh(asked: list[tuple[Cell, Settings]]) -> None:
    Path("profile.json").write_text("no profile")
    assert isinstance(run(SMALL, "--size", "16").exception, DataError)
    result = run(SMALL, "--size", "16", "--fresh")
    assert result.exit_code == 0 and len(cells_of()) == 1


def test_figures() -> None:
    result = run(SMALL, "--size", "16", "--size", "32", "--count-only", "--figures", "drawn")
    assert result.exit_code == 0, result.output
    drawn = sorted(str(path) for path in Path("drawn").iterdir())
    assert drawn and all(f"figure:     {path}" in result.stdout for path in drawn)


def test_figures_of_another_machine(asked: list[tuple[Cell, Settings]]) -> None:
    """Its file is drawn and not touched, though neither the machine nor the device is here."""
    arguments = (SMALL, "--size", "16", "--out", "other.json")
    assert run(*arguments).exit_code == 0
    content = json.loads(Path("other.json").read_text())
    content["machine"].update(processor="Abacus 9", accelerator="Loom")
    times = {"median": 0.5, "lower_quartile": 0.5, "upper_quartile": 0.5, "runs": 3}
    content["cells"][0].update(device="cuda", status="measured", reason=None, seconds=times, images_per_second=2.0)
    Path("other.json").write_text(json.dumps(content))
    app = typer.Typer()
    app.command()(profile)
    counting = ("--device", "cuda", "--count-only", "--figures", "drawn")
    result = CliRunner().invoke(app, [*arguments, *counting])
    assert result.exit_code == 0, result.output
    assert json.loads(Path("other.json").read_text()) == content
    assert "Loom (cuda)" in result.stdout and Path("drawn/bars-16.svg").exists()
    assert isinstance(run(*arguments).exception, DataError)


def test_another_backend_than_the_native_one_is_announced(
    asked: list[tuple[Cell, Settings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERPENT_BACKEND", "portable")
    result = run(SMALL, "--size", "16")
    assert "portable backend on cpu: asked for by SERPENT_BACKEND" in result.stderr


def test_a_huge_memory_limit_is_all_there_is(asked: list[tuple[Cell, Settings]]) -> None:
    assert run(SMALL, "--size", "16", "--memory-limit", "1e20").exit_code == 0
    assert [settings.memory_limit for _, settings in asked] == [10**20 * 2**30]


@pytest.mark.parametrize("limit", ["-1", "0", "nan", "inf"])
def test_memory_limits_that_cannot_be_are_named_in_gibibytes(limit: str) -> None:
    error = run(SMALL, "--memory-limit", limit).exception
    assert isinstance(error, RangeError) and f"--memory-limit {limit} GiB; expected" in str(error)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("hydra",), UnknownNameError),
        ((SMALL, "--size", "wide"), RangeError),
        ((SMALL, "--mode", "dreaming"), UnknownNameError),
        ((SMALL, "--precision", "int8"), UnknownNameError),
        ((SMALL, "--device", "abacus"), DeviceError),
    ],
)
def test_errors_are_named(
    arguments: tuple[str, ...], error: type[Exception], asked: list[tuple[Cell, Settings]]
) -> None:
    assert isinstance(run(*arguments).exception, error)
    assert not asked and not Path("profile.json").exists()


def test_groups() -> None:
    assert expand(["unet-32", "paper", "serpent-b:directions=1"]) == [
        "unet-32", *(name for name in PAPER if name != "unet-32"), "serpent-b:directions=1"
    ]  # fmt: skip
