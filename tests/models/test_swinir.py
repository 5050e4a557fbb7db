"""SwinIR: its attention against the equation, outputs of its authors' program, its variants."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from published_weights import CASES, example, published
from tolerances import RELATIVE, relative_error
from torch import Tensor, nn

from serpent_ir.errors import CheckpointError, RangeError
from serpent_ir.models.swinir import RGB_MEAN, SwinIR, SwinIRConfig, WindowAttention, from_published

UPSAMPLERS = [("", 1), ("pixelshuffle", 2), ("pixelshuffle", 3), ("pixelshuffledirect", 4), ("nearest+conv", 4)]


def small(**fields: Any) -> SwinIR:
    return SwinIR(
        SwinIRConfig(**{"embed_channels": 12, "depths": (2, 1), "heads": (2, 3), "window_size": 4} | fields)
    ).eval()


@pytest.mark.parametrize("case", CASES["swinir"])
@torch.no_grad()
def test_outputs_of_the_authors(case: str) -> None:
    recognised = from_published(published("swinir", case))
    assert recognised is not None
    fields, tensors = recognised
    config = SwinIRConfig(name="published", **fields)
    assert config == SwinIRConfig(name="published", **CASES["swinir"][case]["config"])
    model = SwinIR(config).eval()
    model.load_state_dict(tensors)
    image, expected = example("swinir", case)
    torch.testing.assert_close(model(image.float()), expected, rtol=0, atol=1e-5)


def attention_among_all_pixels(attention: WindowAttention, x: Tensor) -> Tensor:
    """What `attention` does to (H, W, c), with the windows found from each pair of pixels by their coordinates."""
    height, width, channels = x.shape
    window, heads, shift = attention.window, attention.heads, attention.shift
    pixel = torch.arange(height * width)
    row, column = (pixel // width - shift) % height, (pixel % width - shift) % width  # places after the cyclic shift
    wrapped = 2 * (pixel // width < shift) + (pixel % width < shift)
    q, k, v = attention.qkv(x.reshape(-1, channels)).view(-1, 3, heads, channels // heads).unbind(1)
    scores = torch.einsum("ihc,jhc->hij", q, k) / (channels // heads) ** 0.5
    scores[:, wrapped[:, None] != wrapped] -= 100
    down, right = row[:, None] % window - row % window, column[:, None] % window - column % window
    place = (down + window - 1) * (2 * window - 1) + right + window - 1
    scores += attention.relative_position_bias_table[place].permute(2, 0, 1)
    same_window = (row[:, None] // window == row // window) & (column[:, None] // window == column // window)
    scores[:, ~same_window] = -torch.inf
    return attention.proj(torch.einsum("hij,jhc->ihc", scores.softmax(-1), v).reshape(height, width, channels))


@pytest.mark.parametrize(("window", "shift"), [(4, 0), (4, 2), (3, 1), (5, 2), (1, 0)])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 3), (3, 1), (2, 2), (3, 4)])
@torch.no_grad()
def test_windows_are_the_equation(window: int, shift: int, rows: int, columns: int) -> None:
    attention = WindowAttention(channels=12, heads=3, window=window, shift=shift).double()
    nn.init.normal_(attention.relative_position_bias_table)
    x = torch.randn(2, rows * window, columns * window, 12, dtype=torch.float64)
    expected = torch.stack([attention_among_all_pixels(attention, image) for image in x])
    assert relative_error(attention(x), expected) < RELATIVE[torch.float64]


@pytest.mark.parametrize(("upsampler", "upscale"), UPSAMPLERS)
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (9, 4)])
@torch.no_grad()
def test_any_size_is_enlarged(upsampler: str, upscale: int, size: tuple[int, int]) -> None:
    model = small(upsampler=upsampler, upscale=upscale)
    image = torch.rand(2, 3, *size)
    exact = model(image)
    assert exact.shape == (2, 3, upscale * size[0], upscale * size[1]) and exact.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(image)
    half = model.to(torch.bfloat16)(image.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert (mixed - exact).abs().max() < 0.03 and (half - exact).abs().max() < 0.03


@torch.no_grad()
def test_more_channels_in_than_out() -> None:
    image = torch.rand(1, 4, 6, 5)
    model = small(in_channels=4)
    nn.init.zeros_(model.conv_last.weight)
    nn.init.zeros_(model.conv_last.bias)
    assert torch.equal(model(image), image[:, :3])


@torch.no_grad()
def test_colours_are_centred() -> None:
    model = small(upsampler="pixelshuffle", upscale=2)
    nn.init.zeros_(model.conv_last.weight)
    nn.init.zeros_(model.conv_last.bias)
    assert torch.equal(model(torch.rand(1, 3, 6, 5))[0, :, 3, 4], torch.tensor(RGB_MEAN))


def test_initialisation() -> None:
    model = small(embed_channels=48, mlp_ratio=2)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert 0.018 < module.weight.std() < 0.022 and not module.bias.any()
        if isinstance(module, WindowAttention):
            assert 0.01 < module.relative_position_bias_table.std() < 0.03


@torch.no_grad()
def test_compiles_without_a_graph_break_and_exports() -> None:
    model = small(depths=(2,), heads=(2,), upsampler="nearest+conv", upscale=2)
    image = torch.rand(1, 3, 9, 14)
    expected = model(image)
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    torch.testing.assert_close(compiled(image), expected, rtol=1e-4, atol=1e-5)
    program = torch.export.export(model, (image,))
    torch.testing.assert_close(program.module()(image), expected, rtol=1e-4, atol=1e-5)


def test_configuration_survives_json() -> None:
    config = SwinIRConfig("any", depths=(2, 3), heads=(6, 12), mlp_ratio=2.66, upsampler="pixelshuffle", upscale=3)
    assert SwinIRConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    "fields",
    [
        {"depths": (6, 6)},
        {"depths": (), "heads": ()},
        {"depths": (1, 1, 1, -1)},
        {"heads": (6, 6, 6, 7)},
        {"heads": (6, 6, 6, 0)},
        {"embed_channels": 2, "heads": (1, 1, 1, 1)},
        {"residual_connection": "2conv"},
        {"out_channels": 4},
        {"in_channels": 0, "out_channels": 0},
        {"window_size": 0},
        {"window_size": 1000},
        {"mlp_ratio": 0},
        {"mlp_ratio": float("nan")},
        {"upsampler": "bicubic"},
        {"upsampler": "pixelshuffle", "upscale": 5},
        {"upsampler": "nearest+conv", "upscale": 3},
        {"upscale": 2},
        {"image_range": 0},
    ],
)
def test_impossible_configurations(fields: dict[str, Any]) -> None:
    with pytest.raises(RangeError):
        SwinIRConfig(**fields)


def test_weights_of_other_models_are_not_recognised() -> None:
    assert from_published({}) is None
    assert from_published({"conv_first.weight": torch.zeros(4, 3, 3, 3), "body.0.weight": torch.zeros(4)}) is None


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("absolute_pos_embed", torch.zeros(1, 16, 24)),
        ("conv_first.weight", torch.zeros(24, 3)),
        ("conv_last.weight", torch.zeros(0, 24, 3, 3)),
        ("layers.0.residual_group.blocks.0.mlp.fc1.weight", None),
        ("layers.1.residual_group.blocks.2.attn.relative_position_bias_table", torch.zeros(225)),
    ],
)
def test_unusual_weights_are_named(name: str, tensor: Tensor | None) -> None:
    state = published("swinir", "colour-denoising")
    state.pop(name, None)
    if tensor is not None:
        state[name] = tensor
    with pytest.raises(
        CheckpointError, match="absolute position" if name == "absolute_pos_embed" else f"without {name}"
    ):
        from_published(state)
