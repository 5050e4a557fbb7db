"""Kill a training at random moments, again and again, and compare what it ends in with a run that was left alone.

    python tools/kill_and_resume.py --kills 20

Both runs are real `serpent train` processes on generated images. Of four kills, one comes at a random time after the
start of the process, one after that of the training, and two wait after that until a checkpoint is being written (its
temporary file is there). Ends with status 0 when the final weights, the best weights, the state of the optimiser and
the losses in metrics.csv are equal bit by bit, else with status 1.
"""

from __future__ import annotations

import argparse
import csv
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from serpent_ir.files import TEMPORARY_NAMES

MODEL = "{embed_channels: 16, depths_down: [1, 1], depth_bottleneck: 1, depths_up: [0, 1]}"
LARGER_THAN_WEIGHTS = 400_000
"""Bytes: `best.safetensors` has 0.2 MB, a checkpoint 1.6 MB."""
COMMAND = (sys.executable, "-c", "from serpent_ir.cli.main import main; main()", "train")


def arguments_of(run: Path, steps: int) -> list[str]:
    """A small recipe that writes a checkpoint every other step."""
    fields = {
        "run": run, "task": "deblur", "model": "serpent-b", "model_options": MODEL, "generated_images": 8,
        "stages": "[{crop: 32, batch: 4, fraction: 0.5}, {crop: 64, batch: 1, fraction: 0.5}]", "steps": steps,
        "warmup": 10, "ema": 0.99, "validate_every": 50, "checkpoint_every": 2, "log_every": 5, "threads": 1,
        "device": "cpu", "workers": 1,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in fields.items()]


def start(run: Path, steps: int) -> subprocess.Popen[bytes]:
    """A session of the run; what it says is appended to a file beside the run folder."""
    with run.with_suffix(".log").open("ab") as log:
        return subprocess.Popen([*COMMAND, *arguments_of(run, steps)], stdout=log, stderr=log)


def is_writing(run: Path, leftovers: set[Path]) -> bool:
    """Whether a new temporary file is there, larger than any but a checkpoint's gets."""
    for path in run.glob(TEMPORARY_NAMES):
        try:
            if path not in leftovers and path.stat().st_size > LARGER_THAN_WEIGHTS:
                return True
        except FileNotFoundError:
            continue
    return False


def kill_at_random(process: subprocess.Popen[bytes], run: Path, moment: str, longest: float) -> str:
    """Kill at a random time: after the start of the process, or of its training, there perhaps while it writes."""
    metrics, leftovers = run / "metrics.csv", {*run.glob(TEMPORARY_NAMES)}
    before = metrics.stat().st_mtime_ns if metrics.exists() else 0
    if moment != "starting":
        while process.poll() is None and (metrics.stat().st_mtime_ns if metrics.exists() else 0) == before:
            time.sleep(0.01)
    end = time.monotonic() + random.uniform(0.0, longest)
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    while moment == "writing" and process.poll() is None and not is_writing(run, leftovers):
        time.sleep(0.0002)
    process.kill()
    if process.wait() == 0:
        return "the run was over"
    return "a checkpoint half written" if is_writing(run, leftovers) else "no checkpoint half written"


def step_of(run: Path) -> int:
    """The step of the checkpoint that the next session will find; 0 without one."""
    for name in ("last.ckpt", "previous.ckpt"):
        if (run / name).exists():
            return int(torch.load(run / name, weights_only=True)["global_step"])
    return 0


def differences(one: Path, other: Path) -> list[str]:
    """Names of what is not equal bit by bit in two finished runs."""
    states = [torch.load(run / "last.ckpt", weights_only=True) for run in (one, other)]
    found = [name for name in ("state_dict", "optimizer_states") if not equal(states[0][name], states[1][name])]
    for name in ("model.safetensors", "best.safetensors"):
        if not equal(load_file(one / name), load_file(other / name)):
            found.append(name)
    losses = []
    for run in (one, other):
        with (run / "metrics.csv").open(newline="") as file:
            losses.append([(row["step"], row["loss"], row["val_psnr"]) for row in csv.DictReader(file)])
    return found + (["metrics.csv"] if losses[0] != losses[1] else [])


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400, help="length of the run")
    parser.add_argument("--longest", type=float, default=6.0, help="seconds to a kill, at most")
    parser.add_argument("--seed", type=int, default=None, help="of the random moments")
    parser.add_argument("--folder", type=Path, default=None, help="for both runs; a new temporary one by default")
    options = parser.parse_args()
    random.seed(options.seed)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kill-and-resume-"))
    killed, alone = folder / "killed", folder / "alone"
    for run in (killed, alone):
        run.mkdir(parents=True)

    kills, writing = 0, 0
    while kills < options.kills:
        moment = ("training", "writing", "starting", "writing")[kills % 4]
        found = kill_at_random(start(killed, options.steps), killed, moment, options.longest)
        if found == "the run was over":
            sys.exit(f"the run ended after {kills} kills: take more --steps or a shorter --longest")
        kills += 1
        writing += found == "a checkpoint half written"
        print(f"kill {kills}: {found}; the next session begins at step {step_of(killed)}", flush=True)
    for run in (killed, alone):
        status = start(run, options.steps).wait()
        if status != 0:
            sys.exit(f"the training in {run} ended with status {status}, see {run}.log")
    found_differences = differences(killed, alone)
    print(f"{kills} kills, {writing} of them while a checkpoint was written; {options.steps} steps")
    print(
        f"different: {', '.join(found_differences)}" if found_differences else "equal to the run left alone, bit by bit"
    )
    sys.exit(1 if found_differences else 0)


if __name__ == "__main__":
    main()
