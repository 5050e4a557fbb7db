"""Weights files of other authors: found, recognised, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from published_weights import CASES, example, published

from serpent_ir.errors import CheckpointError
from serpent_ir.models import load_model, read_card, save_model

ALL = [(family, case) for family, cases in CASES.items() for case in cases]
COLOUR = ("swinir", "colour-denoising")


@pytest.mark.parametrize(("family", "case"), ALL)
@torch.no_grad()
def test_outputs_of_the_authors(family: str, case: str, tmp_path: Path) -> None:
    torch.save({"params": published(family, case)}, tmp_path / "published.pth")
    model = load_model(tmp_path / "published.pth")
    image, expected = example(family, case)
    assert not model.training
    torch.testing.assert_close(model(image.float()), expected.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "wrapped", [lambda s: s, lambda s: {"params": {}, "params_ema": s}, lambda s: {"state_dict": s}]
)
def test_tensors_are_found(wrapped: Any, tmp_path: Path) -> None:
    path = tmp_path / "005_colorDN.PTH"
    torch.save(wrapped({f"module.{name}": tensor for name, tensor in published(*COLOUR).items()}), path)
    card = read_card(path)
    assert (card.model, card.task, card.dtype) == ("swinir", None, "float32")
    assert card.provenance == {"published as": "005_colorDN.PTH"} and card.config["embed_channels"] == 24
    model = load_model(path)
    assert card.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_can_be_saved_as_ours(tmp_path: Path) -> None:
    torch.save(published("swinir", "real-x2"), tmp_path / "published.pth")
    model = load_model(tmp_path / "published.pth")
    save_model(model, tmp_path / "ours.safetensors")
    again = load_model(tmp_path / "ours.safetensors")
    assert again.config == model.config and model.config.name == "swinir-sr"
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


SHARED = torch.zeros(24)


def with_norm(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """The weights of a case with another tensor in one place."""
    return published(*COLOUR) | {"norm.weight": weight}


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
        (published(*COLOUR) | {"extra.weight": torch.zeros(1)}, "does not fit swinir: 1 tensors .* extra.weight"),
        (with_norm(torch.zeros(1).expand(24)), "more elements than the file holds"),
        (with_norm(torch.zeros(24).to_sparse()), "norm.weight .* not an ordinary one"),
        (with_norm(torch.zeros(24, device="meta")), "norm.weight .* not an ordinary one"),
        (
            with_norm(published(*COLOUR)["norm.bias"]) | {"norm.bias": SHARED, "extra": SHARED},
            "more elements than the file",
        ),
        (with_norm(torch.zeros(24, dtype=torch.int64)), "floating point"),
        (
            {name: t for name, t in published(*COLOUR).items() if name != "conv_last.bias"},
            "does not fit swinir: 1 tensors",
        ),
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


@pytest.mark.parametrize("zipped", [True, False])
def test_cut_short(zipped: bool, tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.ones(3)}, tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
    content = (tmp_path / "whole.pth").read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(1, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut.pth"):
            load_model(path)
