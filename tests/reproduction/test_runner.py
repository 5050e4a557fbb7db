"""The order of rows, what is kept, and failures, with processes that only pretend to train."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from serpent_ir.reproduction import runner
from serpent_ir.reproduction.plan import Plan, Request, make_plan
from serpent_ir.reproduction.results import is_done, read_result
from serpent_ir.reproduction.tables import Table

PRETEND = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / "begun").write_text((folder / "begun").read_text() + "x" if (folder / "begun").exists() else "x")
wish = folder.parent / f"{folder.name}.wish"
wish = wish.read_text() if wish.exists() else "done"
if wish == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if wish == "crash":
    sys.exit(3)
if wish == "wait":
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    (folder / "ready").touch()
    time.sleep(60)
if wish != "unfinished":
    (folder / "result.json").write_text(json.dumps({"status": wish, "reason": "as wished"}))
sys.exit(wish == "failed")
"""


@pytest.fixture
def plans(table: Table, request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    monkeypatch.setattr(runner, "COMMAND", (sys.executable, "-c", PRETEND))
    (tmp_path / "out").mkdir()
    return [make_plan(table, row, request_, tmp_path / "out") for row in table.rows]


def wish(plan: Plan, text: str) -> None:
    plan.folder.with_name(f"{plan.folder.name}.wish").write_text(text)


def begun(plan: Plan) -> int:
    """How often the row's process was started."""
    return len((plan.folder / "begun").read_text())


def make(plans: list[Plan]) -> list[str]:
    seen: list[str] = []
    runner.make_rows(plans, lambda plan: seen.append(plan.folder.name), lambda plan: None)
    return seen


def test_done_rows_are_kept_and_others_made(plans: list[Plan]) -> None:
    assert make(plans[:1]) == ["first"]
    assert make(plans) == ["second"]
    assert make(plans) == []
    assert all(is_done(plan.folder) and begun(plan) == 1 for plan in plans)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("failed", "as wished"),
        ("crash", "ended with exit status 3"),
        ("killed", "killed (SIGKILL), most often for lack of memory"),
    ],
)
def test_a_failure_loses_one_row_and_is_tried_again(plans: list[Plan], kind: str, reason: str) -> None:
    wish(plans[0], kind)
    assert make(plans) == ["first", "second"]
    assert read_result(plans[0].folder) == {"status": "failed", "reason": reason}
    assert is_done(plans[1].folder)
    wish(plans[0], "done")
    assert make(plans) == ["first"]
    assert is_done(plans[0].folder) and begun(plans[0]) == 2


def test_a_row_that_is_out_of_its_time_is_unfinished(plans: list[Plan]) -> None:
    wish(plans[0], "unfinished")
    make(plans)
    assert read_result(plans[0].folder) is None and is_done(plans[1].folder)


def test_ctrl_c_is_passed_on_and_ends_it_all(plans: list[Plan]) -> None:
    wish(plans[0], "wait")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

    def interrupt() -> None:
        while not (plans[0].folder / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    user = threading.Thread(target=interrupt, daemon=True)
    user.start()
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            make(plans)
    finally:
        signal.signal(signal.SIGINT, before)
    user.join()
    assert time.monotonic() - begin < 30, "the row's process was stopped, not waited for"
    assert read_result(plans[0].folder) is None and not plans[1].folder.exists()
