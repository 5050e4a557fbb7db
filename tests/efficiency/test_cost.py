"""The counting rules against layers counted by hand, and the costs that the paper prints."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from serpent_ir.efficiency import count_gmac, count_parameters
from serpent_ir.efficiency.cost import FORMULAS
from serpent_ir.models import create_model
from serpent_ir.models.restormer import ChannelAttention
from serpent_ir.models.serpent import VSSBlock
from serpent_ir.models.swinir import WindowAttention


class OnFeatures(nn.Module):
    """A layer on (B, H, W, C) features, dressed as a model on images with C channels."""

    def __init__(self, layer: nn.Module, channels: int) -> None:
        super().__init__()
        self.layer = layer
        self.config = SimpleNamespace(in_channels=channels)

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(image.permute(0, 2, 3, 1))


class Channels(nn.Module):
    """A layer on (B, C, H, W) features as one on (B, H, W, C)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


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


def test_operators_of_the_cpu_count_what_plain_torch_counts() -> None:
    block = OnFeatures(VSSBlock(12, 4, 2, 2, 3), 12)
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with counter, torch.no_grad():
        block(torch.rand(1, 12, 8, 5))
    assert counter.get_total_flops() / 2e9 == pytest.approx(count_gmac(block, 8, 5))


def test_norms_by_hand() -> None:
    def count(layer: nn.Module) -> float:
        return count_gmac(OnFeatures(layer, 6), 4, 5) * 1e9

    assert count(nn.LayerNorm(6, elementwise_affine=False)) == pytest.approx(4 * 20 * 6)
    assert count(nn.GroupNorm(1, 4)) == pytest.approx(5 * 20 * 6)  # (B, H, W, C) seen as 4 channels of 5 x 6 pixels
    assert count(nn.InstanceNorm2d(4)) == pytest.approx(4 * 20 * 6)
    assert count(nn.InstanceNorm2d(4, affine=True)) == pytest.approx(5 * 20 * 6)


def test_unet_by_hand() -> None:
    pixels, (a, b) = 8 * 4, (6, 12)
    encoder = pixels * 9 * (3 * a + a * a) + pixels // 4 * 9 * (a * b + b * b)
    decoder = (
        pixels * b * a + pixels * 9 * (b * a + a * a) + pixels * a * 3
    )  # each pixel comes from one tap of the 2 x 2
    norms = 4 * (5 * pixels * a + 2 * pixels // 4 * b)
    model = create_model("unet-32", channels=6, poolings=1)
    assert count_gmac(model, 8, 4) * 1e9 == pytest.approx(encoder + decoder + norms)


def test_window_attention_by_hand() -> None:
    channels, window, pixels = 6, 4, 12 * 8
    projections = pixels * channels * 4 * channels
    attention = 2 * pixels * window**2 * channels
    for shift in (0, 2):
        layer = OnFeatures(WindowAttention(channels, 3, window, shift), channels)
        assert count_gmac(layer, 12, 8) * 1e9 == pytest.approx(projections + attention)


def test_channel_attention_by_hand() -> None:
    channels, heads, pixels = 6, 3, 7 * 5
    convolutions = pixels * (channels * 4 * channels + 9 * 3 * channels)
    attention = 2 * pixels * channels * channels // heads
    layer = OnFeatures(Channels(ChannelAttention(channels, heads, bias=False)), channels)
    assert count_gmac(layer, 7, 5) * 1e9 == pytest.approx(convolutions + attention)


PUBLISHED = {  # parameters in millions, GMAC by size, as the paper and docs/conventions.md have them
    "serpent-b": ("3.7", {256: "1.40", 512: "5.61", 1024: "22.4", 2048: "89.7"}),
    "serpent-l": ("3.7", {256: "5.57", 512: "22.3", 1024: "89.1", 2048: "356"}),
    "serpent-h": ("3.7", {256: "22.24", 512: "89.0", 1024: "356", 2048: "1423"}),
    "unet-32": ("7.757", {256: "12.16", 512: "48.6"}),
    "unet-128": ("124.10", {256: "192.8", 512: "771.1"}),
    "swinir-b": ("3.137", {256: "222.4", 512: "889.5"}),
    "swinir-l": ("10.889", {256: "746.9"}),
    "restormer": ("6.676", {256: "40.48", 512: "161.9"}),
}


def digits(value: float, like: str) -> str:
    """`value` with as many decimals as `like`."""
    return f"{value:.{len(like.partition('.')[2])}f}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_table_of_costs(name: str) -> None:
    parameters, costs = PUBLISHED[name]
    with torch.device("meta"):
        model = create_model(name)
    assert digits(count_parameters(model) / 1e6, parameters) == parameters
    assert {size: digits(count_gmac(model, size, size), cost) for size, cost in costs.items()} == costs


def test_parameters_of_serpent() -> None:
    for name in ("serpent-b", "serpent-l", "serpent-h"):
        assert count_parameters(create_model(name)) == pytest.approx(3.705e6, rel=0.002)


def test_counting_leaves_the_model_alone() -> None:
    model = create_model("serpent-b")
    before = [parameter.clone() for parameter in model.parameters()]
    count_gmac(model, 64, 64)
    assert model.training and all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
