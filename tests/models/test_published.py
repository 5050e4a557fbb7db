"""Weights files of other authors: found, recognised, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_weights import weights
from torch import Tensor

from serpent_ir.errors import CheckpointError
from serpent_ir.models import load_model, read_card, save_model

FOLDER = Path(__file__).parent / "published"
CASES = {
    f"{model}/{case}": content
    for model in ("swinir", "restormer")
    for case, content in json.loads((FOLDER / f"{model}.json").read_text())["cases"].items()
}
COLOUR = "swinir/colour-denoising"


def state(case: str) -> dict[str, Tensor]:
    """What the authors' file holds: parameters and buffers under their names."""
    return weights(CASES[case]["names"], CASES[case]["seed"])


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_outputs_of_the_authors(case: str, tmp_path: Path) -> None:
    torch.save({"params": state(case)}, tmp_path / "published.pth")
    model = load_model(tmp_path / "published.pth")
    family, name = case.split("/")
    with np.load(FOLDER / f"{family}.npz") as arrays:
        image, expected = (torch.from_numpy(arrays[f"{name}/{part}"]) for part in ("input", "output"))
    assert not model.training
    torch.testing.assert_close(model(image / 255), expected.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "wrapped", [lambda s: s, lambda s: {"params": {}, "params_ema": s}, lambda s: {"state_dict": s}]
)
def test_tensors_are_found(wrapped: Any, tmp_path: Path) -> None:
    path = tmp_path / "005_colorDN.PTH"
    torch.save(wrapped({f"module.{name}": tensor for name, tensor in state(COLOUR).items()}), path)
    card = read_card(path)
    assert (card.model, card.task, card.dtype) == ("swinir", None, "float32")
    assert card.provenance == {"published as": "005_colorDN.PTH"} and card.config["embed_channels"] == 24
    model = load_model(path)
    assert card.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_can_be_saved_as_ours(tmp_path: Path) -> None:
    torch.save(state("swinir/real-x2"), tmp_path / "published.pth")
    model = load_model(tmp_path / "published.pth")
    save_model(model, tmp_path / "ours.safetensors")
    again = load_model(tmp_path / "ours.safetensors")
    assert again.config == model.config and model.config.name == "swinir-sr"
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("code of a weights file ran",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"params": Evil()}, "cannot be read"),
        ({"params": [1, 2]}, "holds no dictionary of tensors"),
        ([torch.zeros(3)], "holds no dictionary of tensors"),
        ({}, "holds 0 tensors of an unknown model"),
        ({"conv.weight": torch.zeros(3)}, "holds 1 tensors of an unknown model, the first of them 'conv.weight'"),
        (state(COLOUR) | {"extra.weight": torch.zeros(1)}, "does not fit swinir: 1 tensors .* extra.weight"),
        (state(COLOUR) | {"norm.weight": torch.zeros(1).expand(24)}, "norm.weight .* 24 elements but not the data"),
        (state(COLOUR) | {"norm.weight": torch.zeros(24).to_sparse()}, "norm.weight .* 24 elements but not the data"),
        (state(COLOUR) | {"norm.weight": torch.zeros(24, dtype=torch.int64)}, "floating point"),
        ({name: t for name, t in state(COLOUR).items() if name != "conv_last.bias"}, "does not fit swinir: 1 tensors"),
    ],
)
def test_refused(content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "other.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 half a zip", b"\x80\x02garbage"])
def test_damaged(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "damaged.pt").write_bytes(content)
    for function in (load_model, read_card):
        with pytest.raises(CheckpointError, match=r"damaged.pt cannot be read"):
            function(tmp_path / "damaged.pt")
    with pytest.raises(CheckpointError, match="no file"):
        load_model(tmp_path / "missing.pth")
