"""Rows, one after another, each in a process of its own: a crash or a lack of memory loses one row, not the others."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from serpent_ir.errors import FileWriteError
from serpent_ir.python_process import command_of
from serpent_ir.reproduction.plan import Plan, write_plan
from serpent_ir.reproduction.results import is_done, result_file
from serpent_ir.text_file import write_json

COMMAND = command_of("serpent_ir.reproduction.row_process")

OnRow = Callable[[Plan], None]


def make_rows(plans: Sequence[Plan], on_start: OnRow, on_end: OnRow) -> None:
    """Make the rows that are not done yet; after each, its `result.json` says what came out.

    A row that was begun continues, one that failed is tried again, one that is done is left alone.
    on_start, on_end: called before and after each row that is made.

    Raises FileWriteError when the folders cannot be written, KeyboardInterrupt after Ctrl-C: training then stopped with
    a checkpoint (a second Ctrl-C does not wait for it).
    """
    for plan in plans:
        if is_done(plan.folder):
            continue
        on_start(plan)
        try:
            write_plan(plan)
            result_file(plan.folder).unlink(missing_ok=True)
        except OSError as error:
            raise FileWriteError(f"{plan.folder} cannot be written ({error.strerror})") from error
        make_row(plan.folder)
        on_end(plan)


def make_row(folder: Path) -> None:
    """Train and score in a process of its own, which is gone when this ends in any way.

    It is out of reach of the terminal's Ctrl-C; each is passed on to it, and it stops with a checkpoint.
    """
    interrupted = False
    with subprocess.Popen([*COMMAND, str(folder)], stdin=subprocess.PIPE, start_new_session=True) as process:
        while process.returncode is None:
            try:
                process.wait()
            except KeyboardInterrupt:
                interrupted = True
                process.send_signal(signal.SIGINT)
    if interrupted:
        raise KeyboardInterrupt
    if process.returncode and not result_file(folder).exists():
        write_json({"status": "failed", "reason": end_of(process.returncode)}, result_file(folder))


def end_of(status: int) -> str:
    """What the exit status of a process without a result tells."""
    number = -status if status < 0 else status - 128
    if number == signal.SIGKILL:
        return "killed (SIGKILL), most often for lack of memory"
    try:
        return f"stopped by {signal.Signals(number).name}"
    except ValueError:
        return f"ended with exit status {status}"
