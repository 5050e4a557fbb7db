"""Measuring a cell in a process of its own, whatever becomes of that process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serpent_ir.efficiency import status
from serpent_ir.efficiency.cell import Cell, Settings, tells_of_lacking_memory

COMMAND = (sys.executable, "-m", "serpent_ir.efficiency.cell")
HOME = Path(__file__).parents[2]  # where `-m` looks first: for this package, and for no files of the user

PATIENCE = 5.0
"""Seconds that a process gets to end when told to, before it is killed."""


def run_in_process(cell: Cell, settings: Settings) -> dict[str, Any]:
    """The answer of `cell.py`, or what the end of its process tells; the process is gone when this ends in any way."""
    request = json.dumps({"cell": asdict(cell), "settings": asdict(settings)})
    pipe = subprocess.PIPE
    with subprocess.Popen(
        COMMAND, cwd=HOME, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace"
    ) as process:
        try:
            output, errors = process.communicate(request, timeout=settings.time_limit)
        except subprocess.TimeoutExpired:
            return {"status": status.OVER_TIME_LIMIT, "reason": f"stopped after {settings.time_limit:g} s"}
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
        return {"status": status.OUT_OF_MEMORY, "reason": "killed by the system"}
    last = (errors.strip().splitlines() or ["no message"])[-1]
    cause = signal.Signals(-returncode).name if returncode < 0 else f"exit status {returncode}"
    lacking = tells_of_lacking_memory(errors)
    return {"status": status.OUT_OF_MEMORY if lacking else status.FAILED, "reason": f"{cause}: {last}"}
