from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from serpent_ir.reproduction.plan import Request, make_plan, write_plan
from serpent_ir.reproduction.report import as_markdown, on_terminal, write_report
from serpent_ir.reproduction.results import RowResult, result_file, results_of
from serpent_ir.reproduction.tables import Table
from serpent_ir.text_file import write_json

MACHINE = {"processor": "Loom", "accelerator": None, "torch_threads": 2, "versions": {"torch": "9", "serpent-ir": "8"}}


def done(gain: float, **scores: float) -> dict[str, Any]:
    """The result of a row that lifts two photographs from 20 and 22 dB by `gain` and one more dB."""
    images = [
        {
            "name": name,
            "input": {"psnr": psnr, "ssim": 0.5, "lpips": None},
            "output": {"psnr": psnr + gain + extra, "ssim": 0.75, "lpips": None, **scores},
        }
        for name, psnr, extra in (("a.png", 20.0, 0.0), ("b.png", 22.0, 1.0))
    ]
    return {
        "status": "done", "steps": 640, "seconds": 483.2, "others": 0.07, "machine": MACHINE,
        "parameters": 3_708_000, "gmac": 0.351, "side": 128, "trained_on": [], "images": images,
    }  # fmt: skip


@pytest.fixture
def out(table: Table, request_: Request, tmp_path: Path) -> Path:
    """A folder in which both rows are done."""
    for row, gain in zip(table.rows, (3.0, 2.5), strict=True):
        plan = make_plan(table, row, request_, tmp_path / "out")
        write_plan(plan)
        write_json(done(gain), result_file(plan.folder))
    return tmp_path / "out"


def shown(table: Table, rows: list[RowResult]) -> str:
    console = Console(file=io.StringIO(), width=200)
    for part in on_terminal(table, rows):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rows_are_compared_with_the_first(table: Table, out: Path) -> None:
    lines = [" ".join(line.split()) for line in shown(table, results_of(table, out)).splitlines()]
    assert "degraded input 21.00 0.5000" in lines
    assert "The first 24.50 0.7500 3.708 0.35 640 8 min 03 s 7 %" in lines
    assert "The second 24.00 0.7500 -0.50 (-0.50 to -0.50) 3.708 0.35 640 8 min 03 s 7 %" in lines
    assert "trained on photographs; 2s for each row, crops of a step: 2 x 128²" in lines
    assert "scored on 2 photographs of photographs, degraded alike for every row (seed 0)" in lines
    assert "machine: Loom, 2 threads; torch 9, serpent-ir 8" in lines


def test_published_figures_stand_beside_ours(table: Table, out: Path) -> None:
    figures = {"psnr": 28.4, "ssim": 0.8, "lpips": 0.3, "gmac": 1.4}
    rows = (dataclasses.replace(table.rows[0], published=figures), table.rows[1])
    of_paper = dataclasses.replace(table, rows=rows, source="paper")
    text = as_markdown(of_paper, "serpent reproduce two", results_of(of_paper, out))
    assert "| model | PSNR (paper) | SSIM (paper) | LPIPS (paper) | parameters, M | GMAC (paper) |" in text
    assert "| The first | 24.50 (28.40) | 0.7500 (0.8000) | (0.3000) | 3.708 | 0.35 (1.4) | 640 |" in text
    assert "| The second | 24.00 | 0.7500 |  | 3.708 | 0.35 | 640 |" in text
    assert "- no LPIPS: AlexNet's weights are not there" in text
    result_file(out / "first").write_text(json.dumps(done(3.0, lpips=0.25)))
    assert "0.2500 (0.3000)" in as_markdown(of_paper, "", results_of(of_paper, out))


def test_rows_that_are_not_done_say_why(table: Table, out: Path) -> None:
    result_file(out / "first").unlink()
    write_json({"status": "failed", "reason": "no | luck"}, result_file(out / "second"))
    text = as_markdown(table, "serpent reproduce two", results_of(table, out))
    assert "| The first |  |  |  |  | unfinished |" in text and "| The second |  |  |  |  | failed |" in text
    assert r"- second failed: no \| luck" in text
    missing = dataclasses.replace(table.rows[0], name="third")
    assert RowResult(missing).status == "not begun"


def test_photographs_that_were_trained_on_are_named(table: Table, out: Path) -> None:
    row = table.rows[0]

    def text(trained_on: list[str] | None) -> str:
        write_json({**done(3.0), "trained_on": trained_on}, result_file(out / row.name))
        return as_markdown(table, "", results_of(table, out))

    assert "trained on (the weights do not list" in text(None)
    assert "ATTENTION: 1 of these photographs were trained on" in text(["a.png"])
    assert "not known" not in text([]) and "ATTENTION" not in text([])
    write_json({**done(2.5), "trained_on": ["b.png"]}, result_file(out / table.rows[1].name))
    assert "ATTENTION: 2 of these photographs were trained on" in text(["a.png"])
    assert "ATTENTION: 1 of" in text([]) and "ATTENTION: 1 of" in text(None) and "not known" not in text(None)
    write_json({**done(2.5), "trained_on": None}, result_file(out / table.rows[1].name))
    assert "not known" in text([])


def test_files_hold_everything_but_places(table: Table, out: Path, tmp_path: Path) -> None:
    as_data, as_text = write_report(table, "two", "serpent reproduce two", results_of(table, out), out)
    assert (as_data, as_text) == (out / "two.json", out / "two.md")
    content = json.loads(as_data.read_text())
    assert str(tmp_path) not in as_data.read_text() + as_text.read_text()
    first, second = content["rows"]
    assert first["mean"] == {"input": {"psnr": 21.0, "ssim": 0.5}, "output": {"psnr": 24.5, "ssim": 0.75}}
    assert first["psnr_difference"] is None and second["psnr_difference"]["interval"]["mean"] == -0.5
    assert second["plan"]["recipe"]["data"][0]["path"] == "photographs"
    assert second["result"]["images"][1]["output"]["psnr"] == 25.5
    assert (content["command"], content["title"]) == ("serpent reproduce two", "Two rows")


def test_a_failure_does_not_tell_where_files_lie(
    table: Table, request_: Request, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    weights = tmp_path / "own weights" / "w.safetensors"
    request = dataclasses.replace(request_, arguments=["--init_from", str(weights)])
    plan = make_plan(table, table.rows[0], request, tmp_path / "out")
    write_plan(plan)
    reason = f"DataError: {photographs}/a.png, {weights}, {plan.folder}/last.ckpt, /home/somebody/x, "
    reason += "'https://me:secret@host/a/b.tar?key=secret' cannot be read"
    write_json({"status": "failed", "reason": reason}, result_file(plan.folder))
    results, command = results_of(table, tmp_path / "out"), request.command("two")
    as_data, as_text = write_report(table, "two", command, results, tmp_path / "out")
    told = "DataError: photographs/a.png, w.safetensors, out/first/last.ckpt, ~/x, 'b.tar' cannot be read"
    row = json.loads(as_data.read_text())["rows"][0]
    assert row["result"]["reason"] == told and row["plan"]["recipe"]["init_from"] == "w.safetensors"
    for text in (as_data.read_text(), as_text.read_text()):
        assert not any(word in text for word in (str(tmp_path), "own weights", "somebody", "secret"))
