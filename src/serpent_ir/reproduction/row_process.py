"""Making one row in a process of its own: training as its plan says, then scoring. What came out is in `result.json`.

Its argument is the row's folder. Exit status: 0 when the row is whole or `max_time` is over, 1 when it failed (the
result says why), 128 + the signal's number when a signal stopped it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from serpent_ir.efficiency import count_gmac, count_parameters
from serpent_ir.errors import DataError, SerpentError
from serpent_ir.files import sole_use
from serpent_ir.machine import describe_machine, seconds_of_others
from serpent_ir.metrics import load_lpips
from serpent_ir.metrics.lpips_weights import weights_file
from serpent_ir.models import load_model
from serpent_ir.reproduction.plan import Plan, read_plan
from serpent_ir.reproduction.results import is_done, result_file
from serpent_ir.reproduction.scores import score_row
from serpent_ir.restoration.device import resolve_device
from serpent_ir.text_file import write_json
from serpent_ir.training import train
from serpent_ir.training.run_folder import RunFolder

log = logging.getLogger(__name__)


def main() -> None:
    folder = Path(sys.argv[1])
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("serpent_ir").setLevel(logging.INFO)
    stop_with_the_parent()
    lock = folder / ".lock"
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(sole_use(lock, patience=0))
            except TimeoutError:
                log.warning("waiting for another process to leave %s", folder)
                stack.enter_context(sole_use(lock))
            sys.exit(0 if is_done(folder) else make_row(folder))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def make_row(folder: Path) -> int:
    """Train and score; the exit status of the process."""
    plan = read_plan(folder)
    if plan is None:
        raise DataError(f"{folder} holds no row.json", "a folder that `serpent reproduce` began")
    resumed = RunFolder(folder).has_checkpoint()
    try:
        start, others_before = time.monotonic(), seconds_of_others()
        training = train(plan.recipe)
        if training.weights is None:
            return 0 if training.interrupted_by is None else 128 + training.interrupted_by
        others = None if resumed else share_of_others(others_before, time.monotonic() - start)
        result = {
            "status": "done",
            "steps": training.step,
            "seconds": round(training.seconds, 1),
            "others": others,
            "machine": describe_machine(),
            **cost(training.weights, plan),
            **score(training.weights, plan),
        }
    except Exception as error:  # whatever it is, it is this row's; the others are made all the same
        defect = not isinstance(error, SerpentError)
        log.error("this row failed: %s: %s", type(error).__name__, error, exc_info=defect)
        result = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    write_json(result, result_file(folder))
    return 0 if result["status"] == "done" else 1


def cost(weights: Path, plan: Plan) -> dict[str, Any]:
    """Parameters, and the multiply-accumulates (in billions) for an image of the last stage's size."""
    model, side = load_model(weights), plan.recipe.stages[-1].crop
    return {"parameters": count_parameters(model), "gmac": count_gmac(model, side, side), "side": side}


def score(weights: Path, plan: Plan) -> dict[str, Any]:
    """PSNR and SSIM of each photograph, and LPIPS where AlexNet's weights are found; see `score_row`, `load_lpips`."""
    device = resolve_device(None if plan.recipe.device == "auto" else plan.recipe.device)
    lpips = load_lpips(device=device) if weights_file(None).is_file() else None
    return score_row(weights, plan, device, lpips)


def share_of_others(before: float | None, seconds: float) -> float | None:
    """The share of this machine's processors that other processes had in the `seconds` since `before` was taken."""
    now = seconds_of_others()
    if before is None or now is None:
        return None
    return round(max(now - before, 0.0) / (seconds * (os.cpu_count() or 1)), 3)


def stop_with_the_parent() -> None:
    """Stop as by SIGTERM, with a checkpoint, when the process that began this one is gone: its end of our standard
    input is closed then, however it ended."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
