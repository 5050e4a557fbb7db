from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from serpent_ir.cli.reproduce import reproduce
from serpent_ir.data import generated_photographs
from serpent_ir.errors import DataError, UnknownNameError
from serpent_ir.files import sole_use
from serpent_ir.images import Picture, write_image
from serpent_ir.reproduction import row_process, runner
from serpent_ir.reproduction.plan import Request, make_plan, write_plan
from serpent_ir.reproduction.tables import TABLES, choose_rows

TINY = [
    *[
        "--stages",
        "[{crop: 16, batch: 2, fraction: 1.0}]",
        "--checkpoint_every",
        "1",
        "--log_every",
        "1",
        "--threads",
        "1",
    ],
    *["--model_options.embed_channels", "6", "--model_options.depths_down", "[1]", "--model_options.depths_up", "[0]"],
    *["--model_options.depth_bottleneck", "1"],
]


@pytest.fixture
def application() -> typer.Typer:
    app = typer.Typer()
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(reproduce)
    return app


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `photographs` in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("photographs").mkdir()
    for photograph in generated_photographs(2, seed=3):
        write_image(
            Picture(photograph.pixels[:, :48, :64].float() / 255), Path("photographs") / f"{photograph.name}.png"
        )
    return Path("photographs")


PARENT = """
import subprocess, sys
subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True).wait()
"""


def test_killed_and_continued(application: typer.Typer, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of a table is begun as the command begins it, killed while it trains, and continued by the command, which
    here makes it in its own process, to spare the time of starting another one."""

    def make_row_here(folder: Path) -> None:
        with sole_use(folder / ".lock"):
            row_process.make_row(folder)

    request = Request(["photographs"], ["photographs"], "2s", arguments=[*TINY, "--device", "cpu"])
    table = TABLES["equal"]
    plan = make_plan(table, choose_rows(table, ["sr8-twin"], False)[0], request, Path("runs/equal"))
    write_plan(plan)
    command = [sys.executable, "-c", PARENT, *runner.COMMAND, plan.folder]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (plan.folder / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    monkeypatch.setattr(runner, "make_row", make_row_here)
    arguments = ["equal", "--data", "photographs", "--val", "photographs", "--budget", "2s", "--device", "cpu"]
    arguments += ["--only", "sr8-twin", *TINY]
    result = CliRunner().invoke(application, arguments)
    assert result.exit_code == 0, result.output
    (row,) = json.loads(Path("runs/equal/equal.json").read_text())["rows"]
    assert row["status"] == "done" and row["result"]["seconds"] >= 2 and row["result"]["steps"] > 1
    assert row["result"]["others"] is None, "it was continued after the kill"
    assert row["result"]["side"] == 16 and row["result"]["parameters"] > 1000 and row["result"]["gmac"] > 0
    assert row["plan"]["recipe"]["model_options"]["embed_channels"] == 6
    assert [image["name"] for image in row["result"]["images"]] == ["generated-0.png", "generated-1.png"]
    assert row["result"]["trained_on"] == ["generated-0.png", "generated-1.png"]
    assert "8x super-resolution" in result.stdout and "2 of these photographs were trained on" in result.stdout
    assert f"{row['mean']['output']['psnr']:.2f}" in result.stdout and "runs/equal/equal.md" in result.stdout
    assert "--budget 2s" in Path("runs/equal/equal.md").read_text()

    again = CliRunner().invoke(application, arguments)
    assert again.exit_code == 0 and "row 1" not in again.stderr, "what is done is kept"
    assert again.stdout == result.stdout


def test_what_is_missing_is_said_before_anything_is_trained(application: typer.Typer, photographs: Path) -> None:
    result = CliRunner().invoke(application, ["equal", "--data", "photographs"])
    assert isinstance(result.exception, DataError) and "--val" in str(result.exception)
    result = CliRunner().invoke(application, ["equals"])
    assert isinstance(result.exception, UnknownNameError) and "ablation" in str(result.exception)
    assert sorted(os.listdir()) == ["photographs"]


def test_help_names_every_table(application: typer.Typer) -> None:
    text = CliRunner().invoke(application, ["--help"]).stdout
    assert all(name in text for name in TABLES)
