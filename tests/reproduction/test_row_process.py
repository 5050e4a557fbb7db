"""A row made in this process; one that comes to its end is in tests/cli/test_reproduce.py."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest

from serpent_ir.files import sole_use
from serpent_ir.reproduction import row_process
from serpent_ir.reproduction.plan import Plan, Request, make_plan, write_plan
from serpent_ir.reproduction.results import read_result
from serpent_ir.reproduction.row_process import make_row
from serpent_ir.reproduction.tables import Table

TINY = {"embed_channels": 6, "depths_down": [1], "depth_bottleneck": 1, "depths_up": [0], "directions": 1}


@pytest.fixture
def plan(table: Table, request_: Request, tmp_path: Path) -> Plan:
    """Three steps of a tiny Serpent."""
    arguments = ["--stages=[{crop: 16, batch: 2, fraction: 1.0}]", "--steps=3", "--threads=1", "--device=cpu"]
    plan = make_plan(table, table.rows[0], dataclasses.replace(request_, budget=None, arguments=arguments), tmp_path)
    return dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, model_options=TINY), seed=5)


def test_what_goes_wrong_is_the_rows_result(plan: Plan) -> None:
    write_plan(dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, model="serpent-x")))
    assert make_row(plan.folder) == 1
    result = read_result(plan.folder)
    assert (
        result is not None
        and result["status"] == "failed"
        and "UnknownNameError: model 'serpent-x'" in result["reason"]
    )


def test_a_training_that_is_out_of_time_has_no_result(plan: Plan) -> None:
    write_plan(dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, max_time="0.001")))
    assert make_row(plan.folder) == 0 and read_result(plan.folder) is None


def test_two_processes_do_not_make_the_same_row(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_plan(plan)
    (plan.folder / "result.json").write_text('{"status": "done"}')
    monkeypatch.setattr("sys.argv", ["row_process", str(plan.folder)])
    monkeypatch.setattr(row_process, "stop_with_the_parent", lambda: None)
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)
    ended: list[object] = []

    def other() -> None:
        try:
            row_process.main()
        except SystemExit as end:
            ended.append(end.code)

    thread = threading.Thread(target=other, daemon=True)
    with sole_use(plan.folder / ".lock"):
        thread.start()
        thread.join(0.5)
        assert not ended
    thread.join(30)
    assert ended == [0] and "waiting for another process" in caplog.text
