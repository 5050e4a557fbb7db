"""A recipe that trains a tiny Serpent in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serpent_ir.training import Recipe, Stage

TINY_MODEL = {"embed_channels": 6, "depths_down": [1], "depth_bottleneck": 1, "depths_up": [0], "directions": 1}


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """Makes recipes: generated images, two stages, 8 steps; `changes` replace fields."""

    def make(**changes: Any) -> Recipe:
        fields: dict[str, Any] = {
            "run": str(tmp_path / "run"),
            "task": "deblur",
            "model": "serpent-b",
            "model_options": TINY_MODEL,
            "generated_images": 4,
            "stages": [Stage(16, 2, 0.5), Stage(24, 1, 0.5)],
            "steps": 8,
            "warmup": 2,
            "validate_every": 4,
            "checkpoint_every": 3,
            "log_every": 2,
            "threads": 1,
            "device": "cpu",
        }
        return Recipe(**{**fields, **changes})

    return make
