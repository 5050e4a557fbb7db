"""The counting rules against layers counted by hand, and the costs that the paper prints."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from serpent_ir.efficiency import count_gmac, count_parameters
from serpent_ir.models import create_model
from serpent_ir.models.serpent import VSSBlock


class OnFeatures(nn.Module):
    """A layer on (B, H, W, C) features, dressed as a model on images with C channels."""

    def __init__(self, layer: nn.Module, channels: int) -> None:
        super().__init__()
        self.layer = layer
        self.config = SimpleNamespace(in_channels=channels)

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(image.permute(0, 2, 3, 1))


def test_layers_by_hand() -> None:
    assert count_gmac(OnFeatures(nn.Linear(6, 10), 6), 4, 5, batch=2) == pytest.approx(2 * 20 * 6 * 10 / 1e9)
    assert count_gmac(OnFeatures(nn.LayerNorm(6), 6), 4, 5) == pytest.approx(5 * 20 * 6 / 1e9)
    assert count_gmac(OnFeatures(nn.GELU(), 6), 4, 5) == 0


def test_vss_block_by_hand() -> None:
    c, k, n, r, pixels = 12, 4, 2, 3, 8 * 5
    inner = 2 * c
    projections = c * 2 * inner + inner * k * (r + 2 * n) + inner * c
    convolution = 9 * inner
    scan = 9 * k * inner * n + k * inner + k * inner * r
    norms = 5 * c + 5 * inner
    block = OnFeatures(VSSBlock(c, k, 2, n, r), c)
    assert count_gmac(block, 8, 5) == pytest.approx(pixels * (projections + convolution + scan + norms) / 1e9)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("serpent-b", {256: 1.40, 512: 5.61, 1024: 22.4, 2048: 89.7}),
        ("serpent-l", {256: 5.57, 512: 22.3, 1024: 89.1, 2048: 356}),
        ("serpent-h", {256: 22.24, 512: 89.0, 1024: 356, 2048: 1423}),
    ],
)
def test_table_of_costs(name: str, expected: dict[int, float]) -> None:
    model = create_model(name)
    assert count_parameters(model) == pytest.approx(3.705e6, rel=0.002)
    for size, gmac in expected.items():
        assert count_gmac(model, size, size) == pytest.approx(gmac, rel=0.003)


def test_counting_leaves_the_model_alone() -> None:
    model = create_model("serpent-b")
    before = [parameter.clone() for parameter in model.parameters()]
    count_gmac(model, 64, 64)
    assert model.training and all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
