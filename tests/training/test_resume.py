"""Killing a real process: the run that is resumed ends in the same bits as one that was left alone."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

import serpent_ir
from serpent_ir.training import Recipe, train

PROGRAM = """
import sys
from serpent_ir.training import load_recipe, train
result = train(load_recipe(sys.argv[1]))
sys.exit(0 if result.finished else 100 + result.interrupted_by)
"""


def run_until(config: Path, ready: Callable[[], bool], number: signal.Signals) -> int:
    """Train in another process, send it a signal as soon as `ready`, and give its exit status."""
    environment = {**os.environ, "PYTHONPATH": str(Path(serpent_ir.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(config)], env=environment, stderr=subprocess.PIPE)
    try:
        while not ready():
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate(timeout=60)
        return process.returncode
    finally:
        process.kill()
        process.communicate()


def steps_logged(run: Path) -> int:
    """The last step in metrics.csv; 0 without one."""
    metrics = run / "metrics.csv"
    lines = metrics.read_text().splitlines()[1:] if metrics.exists() else []
    return int(lines[-1].split(",")[0]) if lines and lines[-1].count(",") == 7 else 0


def test_killed_twice_equals_left_alone(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = tiny_recipe(run=str(tmp_path / "killed"), steps=60, checkpoint_every=4, validate_every=20, log_every=1)
    config = tmp_path / "recipe.yaml"
    config.write_text(yaml.safe_dump(recipe.as_dict()))
    run = tmp_path / "killed"

    assert run_until(config, lambda: steps_logged(run) >= 14, signal.SIGKILL) == -signal.SIGKILL
    at_the_kill = steps_logged(run)
    assert 14 <= at_the_kill < 60
    assert run_until(config, lambda: steps_logged(run) >= at_the_kill + 6, signal.SIGTERM) == 100 + signal.SIGTERM
    stopped_at = torch.load(run / "last.ckpt", weights_only=True)["global_step"]
    assert steps_logged(run) == stopped_at < 60
    assert train(recipe).finished

    alone = dataclasses.replace(recipe, run=str(tmp_path / "alone"))
    assert train(alone).finished
    first, second = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("killed", "alone"))
    assert first["global_step"] == second["global_step"] == 60
    for name, tensor in first["state_dict"].items():
        assert torch.equal(tensor, second["state_dict"][name]), name
    for file in ("best.safetensors", "model.safetensors"):
        one, other = (load_file(tmp_path / name / file) for name in ("killed", "alone"))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one), file
    for name in ("killed", "alone"):
        rows = (tmp_path / name / "metrics.csv").read_text().splitlines()[1:]
        assert [int(row.split(",")[0]) for row in rows] == list(range(1, 61))
    assert losses_of(tmp_path / "killed") == losses_of(tmp_path / "alone")


def losses_of(run: Path) -> list[str]:
    return [row.split(",")[2] for row in (run / "metrics.csv").read_text().splitlines()[1:]]
