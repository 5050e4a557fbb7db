"""Measuring a cell in a process of its own, whatever becomes of that process."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from dataclasses import asdict
from typing import Any

from serpent_ir.efficiency.cell import Cell, Settings, Status
from serpent_ir.errors import lacks_memory
from serpent_ir.machine import HUGE_PAGES_VARIABLE
from serpent_ir.python_process import command_of

COMMAND = command_of("serpent_ir.efficiency.cell")

KILLED = "killed by the system (SIGKILL), most often for lack of memory"

PATIENCE = 5.0
"""Seconds that a process gets to end when told to, before it is killed."""


def run_in_process(cell: Cell, settings: Settings) -> dict[str, Any]:
    """The answer of `cell.py`, or what the end of its process tells; the process is gone when this ends in any way."""
    deadline = time.monotonic() + (settings.time_limit or math.inf)
    request = json.dumps({"cell": asdict(cell), "settings": asdict(settings), "deadline": deadline})
    environment = {HUGE_PAGES_VARIABLE: "1", **os.environ}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        COMMAND, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace"
    ) as process:
        try:
            output, errors = process.communicate(request, timeout=settings.time_limit)
        except subprocess.TimeoutExpired:
            return {"status": Status.OVER_TIME_LIMIT, "reason": f"stopped after {settings.time_limit:g} s"}
        finally:
            end(process)
    if process.returncode == 0:
        answer: dict[str, Any] = json.loads(output)
        return answer
    return died(process.returncode, errors)


def end(process: subprocess.Popen[str]) -> None:
    """End a process that may still run."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


def died(returncode: int, errors: str) -> dict[str, Any]:
    """The result of a cell whose process ended without an answer, having written `errors`."""
    if returncode == -signal.SIGKILL:
        return {"status": Status.OUT_OF_MEMORY, "reason": KILLED}
    last = (errors.strip().splitlines() or ["no message"])[-1]
    cause = signal.Signals(-returncode).name if returncode < 0 else f"exit status {returncode}"
    return {"status": Status.OUT_OF_MEMORY if lacks_memory(errors) else Status.FAILED, "reason": f"{cause}: {last}"}
