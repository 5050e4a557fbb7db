"""Restorers as they are sent to other machines."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from serpent_ir import tasks
from serpent_ir.errors import CheckpointError, RestorationError, UnknownNameError
from serpent_ir.models import create_model, save_model
from serpent_ir.restoration import Restorer
from serpent_ir.restoration.portable import portable_restorer

TINY = {"embed_channels": 6, "depths_down": (1,), "depth_bottleneck": 1, "depths_up": (0,), "directions": 1}


@pytest.mark.parametrize("task", [None, "fog.yaml", "inpaint"])
def test_it_makes_an_equal_restorer_without_the_files(task: str | None, tmp_path: Path) -> None:
    weights, image = tmp_path / "weights.safetensors", torch.rand(4 if task == "inpaint" else 3, 9, 13)
    channels = {"in_channels": 4} if task == "inpaint" else {}
    save_model(create_model("serpent-b", **TINY, **channels), weights, task=None if task == "fog.yaml" else task)
    (tmp_path / "fog.yaml").write_text("[{operator: gaussian_noise, sigma: 0.1}]")
    given = tmp_path / task if task == "fog.yaml" else task
    here = Restorer(given, weights, "cpu", precision="bfloat16")
    sent = pickle.dumps(portable_restorer(given, weights, precision="bfloat16"))
    for path in tmp_path.iterdir():
        path.unlink()
    there = pickle.loads(sent).build("cpu")
    assert there.settings() == here.settings() and there.task == here.task
    assert torch.equal(there(image), here(image))


def test_embedded_weights_go_along() -> None:
    portable = portable_restorer(model="deblur-serpent-b")
    assert portable.weights.name == "deblur-serpent-b.safetensors" and len(portable.weights.content) > 1000
    assert "content" not in repr(portable.weights)


def test_what_is_not_sent() -> None:
    """Code of the user's, and what is not there."""
    with pytest.raises(RestorationError, match=r"a module is not sent.*weights file"):
        portable_restorer("deblur", nn.Identity())
    with pytest.raises(RestorationError, match=r"a degradation is not sent.*task file"):
        portable_restorer(tasks.create("deblur"))
    with pytest.raises(UnknownNameError, match="no embedded weights"):
        portable_restorer("fog")
    with pytest.raises(CheckpointError, match=r"nowhere.safetensors cannot be read \(No such file"):
        portable_restorer("deblur", "nowhere.safetensors")
