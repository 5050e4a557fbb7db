"""Restormer: its parts against the equations, outputs of its authors' program, its variants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published_weights import CASES, example, published
from tolerances import RELATIVE, relative_error
from torch import nn

from serpent_ir.errors import RangeError
from serpent_ir.models.restormer import (
    ChannelAttention,
    GatedFeedForward,
    LayerNorm,
    Restormer,
    RestormerConfig,
    from_published,
)

VARIANTS: list[dict[str, Any]] = [
    {},
    {"layer_norm": "bias-free", "in_channels": 1, "out_channels": 1},
    {"bias": True, "heads": (2, 1, 4, 16), "ffn_factor": 1.5},
    {"dual_pixel": True, "in_channels": 6, "bias": True},
    {"in_channels": 4, "refinement_blocks": 0, "blocks": (0, 1, 0, 0)},
]


def small(**fields: Any) -> Restormer:
    return Restormer(
        RestormerConfig(
            **{"dim": 8, "blocks": (1, 1, 1, 1), "heads": (1, 2, 2, 4), "refinement_blocks": 1} | fields,
        )
    ).eval()


@pytest.mark.parametrize("case", CASES["restormer"])
@torch.no_grad()
def test_outputs_of_the_authors(case: str) -> None:
    recognised = from_published(published("restormer", case))
    assert recognised is not None
    fields, tensors = recognised
    config = RestormerConfig(name="published", **fields)
    assert config == RestormerConfig(name="published", **CASES["restormer"][case]["config"])
    model = Restormer(config).eval()
    model.load_state_dict(tensors)
    image, expected = example("restormer", case)
    torch.testing.assert_close(model(image.float()).double(), expected, rtol=1e-5, atol=1e-5)
    assert relative_error(model.double()(image), expected) < RELATIVE[torch.float64]


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_channel_attention_is_the_equation(bias: bool) -> None:
    channels, heads, pixels = 6, 3, 4 * 5
    attention = ChannelAttention(channels, heads, bias).double()
    nn.init.normal_(attention.temperature, 1, 3)
    x = torch.randn(2, channels, 4, 5, dtype=torch.float64)
    every = [
        F.conv2d(
            F.conv2d(x, attention.qkv.weight, attention.qkv.bias),
            attention.qkv_dwconv.weight,
            attention.qkv_dwconv.bias,
            padding=1,
            groups=3 * channels,
        )[:, part * channels : (part + 1) * channels].reshape(2, channels, pixels)
        for part in range(3)
    ]
    mixed = torch.zeros(2, channels, pixels, dtype=torch.float64)
    for image in range(2):
        query, key, value = (part[image] for part in every)
        for channel in range(channels):
            head = channel // (channels // heads)
            of_head = [other for other in range(channels) if other // (channels // heads) == head]
            scores = torch.stack([F.cosine_similarity(query[channel], key[other], dim=0) for other in of_head])
            shares = (scores * attention.temperature[head, 0, 0]).exp()
            for share, other in zip(shares / shares.sum(), of_head, strict=True):
                mixed[image, channel] += share * value[other]
    expected = torch.einsum("oc,bcp->bop", attention.project_out.weight[:, :, 0, 0], mixed).view(x.shape)
    if bias:
        assert attention.project_out.bias is not None
        expected += attention.project_out.bias[:, None, None]
    assert relative_error(attention(x), expected) < RELATIVE[torch.float64]


@torch.no_grad()
def test_feed_forward_is_the_equation() -> None:
    network = GatedFeedForward(4, 5, bias=False).double()
    x = torch.randn(2, 4, 3, 6, dtype=torch.float64)
    wide = torch.einsum("oc,bchw->bohw", network.project_in.weight[:, :, 0, 0], x)
    wide = F.conv2d(wide, network.dwconv.weight, padding=1, groups=10)
    gate = wide[:, :5] * (1 + torch.erf(wide[:, :5] / math.sqrt(2))) / 2
    expected = torch.einsum("oc,bchw->bohw", network.project_out.weight[:, :, 0, 0], gate * wide[:, 5:])
    assert relative_error(network(x), expected) < RELATIVE[torch.float64]


@torch.no_grad()
def test_norms_are_the_equations() -> None:
    x = 3 + torch.randn(2, 6, 3, 4, dtype=torch.float64)
    x[0, :, 0, 0] = 2  # a pixel without any variance
    norm = LayerNorm(6, bias=True).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    expected = F.layer_norm(x.permute(0, 2, 3, 1), (6,), norm.weight, norm.bias).permute(0, 3, 1, 2)
    assert relative_error(norm(x), expected) < RELATIVE[torch.float64]

    bias_free = LayerNorm(6, bias=False).double()
    nn.init.normal_(bias_free.weight)
    pixels = x.permute(0, 2, 3, 1).reshape(-1, 6).numpy()
    rows = [pixel / math.sqrt(np.var(pixel) + 1e-5) * bias_free.weight.numpy() for pixel in pixels]
    expected = torch.from_numpy(np.stack(rows)).view(2, 3, 4, 6).permute(0, 3, 1, 2)
    assert relative_error(bias_free(x), expected) < RELATIVE[torch.float64]


@pytest.mark.parametrize("fields", VARIANTS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 6)])
@torch.no_grad()
def test_variants_take_any_size_and_low_precision(fields: dict[str, Any], size: tuple[int, int]) -> None:
    model = small(**fields)
    image = torch.rand(2, model.config.in_channels, *size)
    exact = model(image)
    assert exact.shape == (2, model.config.out_channels, *size) and exact.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(image)
    half = model.to(torch.bfloat16)(image.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert (mixed - exact).abs().max() < 0.05 and (half - exact).abs().max() < 0.05


@pytest.mark.parametrize("fields", VARIANTS)
def test_every_parameter_gets_a_gradient(fields: dict[str, Any]) -> None:
    model = small(**fields)
    output = model(torch.rand(2, model.config.in_channels, 24, 40))
    (output - torch.rand_like(output)).square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


@torch.no_grad()
def test_image_is_added_to_the_output() -> None:
    for fields in ({}, {"in_channels": 5}, {"in_channels": 6, "dual_pixel": True}):
        model = small(**fields)
        nn.init.zeros_(model.output.weight)
        image = torch.rand(1, model.config.in_channels, 9, 7)
        assert torch.equal(model(image), torch.zeros(1, 3, 9, 7) if model.config.dual_pixel else image[:, :3])


def test_only_published_names_are_recognised() -> None:
    state = published("restormer", "colour")
    assert from_published(small().state_dict()) is None
    for name in ("patch_embed.proj.weight", "encoder_level3.0.attn.temperature", "latent.0.ffn.project_out.weight"):
        assert from_published({other: tensor for other, tensor in state.items() if other != name}) is None
        for damaged in (torch.zeros(()), torch.zeros(0, 1, 1), torch.zeros(1, 0, 1, 1)):
            assert from_published(state | {name: damaged}) is None


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0, 2.66, 8 / 3, 3.1, 4.0, 5.0625])
@pytest.mark.parametrize("dim", [8, 22, 48, 50])
def test_feed_forward_factor_is_recognised(factor: float, dim: int) -> None:
    state = published("restormer", "colour")
    hidden = [int(dim * 2**level * factor) for level in range(4)]
    state["patch_embed.proj.weight"] = torch.zeros(dim, 3, 3, 3)
    for part, wide in zip(("encoder_level1", "encoder_level2", "encoder_level3", "latent"), hidden, strict=True):
        state[f"{part}.0.ffn.project_out.weight"] = torch.zeros(1, wide, 1, 1)
    recognised = from_published(state)
    assert recognised is not None
    found = recognised[0]["ffn_factor"]
    assert [int(dim * 2**level * found) for level in range(4)] == hidden
    assert len(repr(found)) <= len(repr(factor))


def test_feed_forward_that_no_factor_explains() -> None:
    state = published("restormer", "colour") | {"latent.0.ffn.project_out.weight": torch.zeros(64, 3, 1, 1)}
    recognised = from_published(state)
    assert recognised is not None
    with pytest.raises(RuntimeError, match="size mismatch"):
        Restormer(RestormerConfig(**recognised[0])).load_state_dict(recognised[1])


@pytest.mark.parametrize(
    "fields",
    [
        {"blocks": (1, 1, 1)},
        {"heads": (1, 2, 4)},
        {"blocks": (1, 1, 1, -1)},
        {"refinement_blocks": 1000},
        {"dim": 0},
        {"dim": 9},
        {"heads": (1, 2, 4, 0)},
        {"heads": (3, 2, 4, 8)},
        {"ffn_factor": 0.1},
        {"ffn_factor": math.inf},
        {"ffn_factor": math.nan},
        {"layer_norm": "none"},
        {"in_channels": 0},
        {"in_channels": 1},
    ],
)
def test_impossible_configurations(fields: dict[str, Any]) -> None:
    with pytest.raises(RangeError):
        RestormerConfig(**{"dim": 8, "heads": (1, 1, 1, 1)} | fields)


@torch.no_grad()
def test_compiles_without_a_graph_break_and_exports() -> None:
    model = small(blocks=(1, 0, 0, 0), refinement_blocks=0)
    image = torch.rand(1, 3, 9, 14)
    expected = model(image)
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    torch.testing.assert_close(compiled(image), expected, rtol=1e-4, atol=1e-5)
    program = torch.export.export(model, (image,))
    torch.testing.assert_close(program.module()(image), expected, rtol=1e-4, atol=1e-5)
