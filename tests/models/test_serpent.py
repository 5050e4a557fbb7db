"""Serpent: its parts against the equations, its variants, its invariances."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tolerances import RELATIVE, relative_error
from torch import nn

from serpent_ir.errors import RangeError, UnknownNameError
from serpent_ir.models import create_model, list_models
from serpent_ir.models.padding import crop, pad_to_multiple
from serpent_ir.models.serpent import (
    GatedConvBlock,
    PatchExpanding,
    PatchMerging,
    VSSBlock,
    from_patches,
    to_patches,
    twin_width,
)
from serpent_ir.ops import reference

Small = Callable[..., nn.Module]


def test_vss_block_is_the_equation() -> None:
    block = VSSBlock(channels=12, directions=4, expansion=2, states=2, rank=3).double()
    x = torch.randn(2, 5, 4, 12, dtype=torch.float64)
    a, z = block.in_proj(F.layer_norm(x, (12,), block.norm.weight, block.norm.bias)).split([24, 24], dim=-1)
    kernel = block.conv.weight
    a = F.conv2d(a.permute(0, 3, 1, 2), kernel, block.conv.bias, padding=1, groups=24).permute(0, 2, 3, 1)
    a = a * torch.sigmoid(a)
    rows = (a @ block.x_proj.weight.t()).view(2, 5, 4, 4, 3 + 2 + 2)
    y = reference.selective_scan_2d(
        a, rows[..., :3], rows[..., 3:5], rows[..., 5:], block.dt_weight, block.dt_bias, -block.A_log.exp(), block.D
    )
    y = F.layer_norm(y, (24,), block.scan_norm.weight, block.scan_norm.bias) * z * torch.sigmoid(z)
    expected = x + y @ block.out_proj.weight.t()
    assert relative_error(block(x), expected) < RELATIVE[torch.float64]


def test_initialisation_of_the_scan() -> None:
    block = VSSBlock(channels=32, directions=4, expansion=2, states=6, rank=2)
    assert torch.allclose(block.A_log.exp(), torch.arange(1.0, 7).expand(4, 64, 6))
    assert torch.equal(block.D, torch.ones(4, 64))
    steps = F.softplus(block.dt_bias)
    assert steps.min() > 1e-3 * 0.99 and steps.max() < 1e-1 * 1.01
    assert 0.4 < (steps.log() < torch.tensor(1e-2).log()).float().mean() < 0.6  # log-uniform: half below the middle
    assert block.dt_weight.abs().max() <= 2**-0.5


def test_merging_concatenates_neighbours() -> None:
    x = torch.arange(2 * 4 * 3, dtype=torch.float32).view(1, 2, 4, 3)
    merging = PatchMerging(3)
    merging.norm, merging.linear = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    merged = merging(x)
    assert merged.shape == (1, 1, 2, 12)
    assert torch.equal(merged[0, 0, 1], torch.cat([x[0, 0, 2], x[0, 0, 3], x[0, 1, 2], x[0, 1, 3]]))


def test_expanding_spreads_channels_over_pixels() -> None:
    x = torch.randn(1, 2, 3, 8)
    expanding = PatchExpanding(8)
    expanding.norm = nn.Identity()  # type: ignore[assignment]
    wide, expanded = expanding.linear(x), expanding(x)
    assert expanded.shape == (1, 4, 6, 4)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = 4 * (2 * row + column)
        assert torch.equal(expanded[:, row::2, column::2], wide[..., part : part + 4])


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("serpent-b", "depths_up", 3),
        ("serpent-b", "depths_up", [0, 2, "2"]),
        ("serpent-b", "input_skip", "False"),
        ("serpent-b", "patch_size", 2.0),
        ("serpent-b", "patch_size", True),
        ("restormer", "bias", 1),
        ("restormer", "ffn_factor", "2.66"),
        ("swinir-b", "upsampler", None),
    ],
)
def test_values_of_another_type(name: str, field: str, value: object) -> None:
    with pytest.raises(RangeError, match=rf"{field}=.* of {name}; expected a value such as"):
        create_model(name, **{field: value})


def test_whole_numbers_for_real_ones_and_lists_for_tuples() -> None:
    assert create_model("restormer", dim=8, ffn_factor=2).config.ffn_factor == 2
    assert create_model("serpent-b", depths_up=[0, 1, 1]).config.depths_up == (0, 1, 1)


@pytest.mark.parametrize(
    "overrides",
    [
        {"directions": 1},
        {"directions": 2},
        {"patch_size": 1},
        {"patch_size": 4},
        {"depths_up": (0,)},
        {"skip": "concat"},
        {"input_skip": True},
        {"in_channels": 4},
        {"expansion": 1},
        {"depths_down": (1, 1), "depths_up": (0, 1)},
    ],
)
def test_variants_run_and_learn(small: Small, overrides: dict[str, object]) -> None:
    model = small(**overrides)
    model(torch.rand(2, model.config.in_channels, 9, 14)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_input_skip_adds_the_image(small: Small) -> None:
    torch.manual_seed(1)
    plain = small(in_channels=4)
    skipping = small(in_channels=4, input_skip=True)
    skipping.load_state_dict(plain.state_dict())
    image = torch.rand(1, 4, 7, 9)
    torch.testing.assert_close(skipping(image) - plain(image), image[:, :3], rtol=1e-4, atol=1e-5)


def test_with_input_skip_training_begins_from_the_image_itself(small: Small) -> None:
    image = torch.rand(1, 3, 7, 9)
    assert torch.equal(small(input_skip=True)(image), image)


def test_global_receptive_field(small: Small) -> None:
    model = small().eval()
    image = torch.rand(1, 3, 24, 24, requires_grad=True)
    model(image)[0, :, 0, 0].sum().backward()
    assert image.grad is not None and image.grad[0, :, -1, -1].abs().max() > 0


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_as_pixel_shuffle_orders_them(patch: int) -> None:
    image = torch.rand(2, 3, 8, 12)
    patches = to_patches(image, patch)
    assert torch.equal(patches, F.pixel_unshuffle(image, patch).permute(0, 2, 3, 1))
    assert torch.equal(from_patches(patches, patch), image)


def test_padding_reflects_and_is_cropped() -> None:
    image = torch.arange(5.0).view(1, 1, 1, 5)
    padded = pad_to_multiple(image, 1, 8)
    assert padded.shape == (1, 1, 8, 8)
    assert padded[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert torch.equal(crop(padded, image), image)
    assert pad_to_multiple(torch.arange(2.0).view(1, 1, 1, 2), 1, 8)[0, 0, 3].tolist() == [0, 1] * 4
    assert pad_to_multiple(torch.zeros(1, 1, 8, 16), 1, 8).shape == (1, 1, 8, 16)


def test_names_and_fields() -> None:
    assert list_models()[:3] == ["serpent-b", "serpent-l", "serpent-h"]
    assert [create_model(name).config.patch_size for name in list_models()[:3]] == [4, 2, 1]
    assert all(create_model(name).config.name == name for name in list_models())
    with pytest.raises(UnknownNameError, match="model 'serpent-x'; expected one of serpent-b, serpent-l, serpent-h"):
        create_model("serpent-x")
    with pytest.raises(UnknownNameError, match="field 'patch' of serpent-b; expected one of patch_size"):
        create_model("serpent-b", patch=4)


@pytest.mark.parametrize(
    "overrides",
    [
        {"directions": 3},
        {"skip": "none"},
        {"patch_size": 0},
        {"depths_up": (1, 2)},
        {"depth_bottleneck": -1},
        {"in_channels": 1, "input_skip": True},
    ],
)
def test_impossible_configurations(overrides: dict[str, object]) -> None:
    with pytest.raises(RangeError):
        create_model("serpent-b", **overrides)


@torch.no_grad()
def test_compiles_without_a_graph_break_and_exports(small: Small) -> None:
    model = small().eval()
    image = torch.rand(1, 3, 9, 14)
    expected = model(image)
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    torch.testing.assert_close(compiled(image), expected, rtol=1e-4, atol=1e-5)
    program = torch.export.export(model, (image,))
    torch.testing.assert_close(program.module()(image), expected, rtol=1e-4, atol=1e-5)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("channels", "directions"), [(32, 4), (32, 1), (64, 2), (128, 4), (256, 4)])
def test_twin_blocks_have_as_many_parameters(channels: int, directions: int) -> None:
    sizes = (channels, directions, 2, -(-channels // 6), -(-channels // 16))
    twin = GatedConvBlock(channels, twin_width(*sizes))
    assert parameters(twin) == pytest.approx(parameters(VSSBlock(*sizes)), rel=0.005)


@pytest.mark.parametrize("name", ["serpent-b", "serpent-h"])
def test_convolutional_twin(name: str) -> None:
    with torch.device("meta"):
        model, twin = create_model(name), create_model(name, block="conv")
    assert parameters(twin) == pytest.approx(parameters(model), rel=0.001)
    assert not any(isinstance(module, VSSBlock) for module in twin.modules())
    assert [len(blocks) for blocks in twin.down] == [len(blocks) for blocks in model.down]


@torch.no_grad()
def test_twin_sees_its_neighbourhood_only(small: Small) -> None:
    image = torch.rand(1, 3, 4, 64)
    changed = image.clone()
    changed[..., 0] += 0.5
    for block, far_away in (("vss", True), ("conv", False)):
        model = small(block=block).eval()
        difference = (model(changed) - model(image)).abs()[..., -8:].max()
        assert bool(difference > 0) is far_away


@torch.no_grad()
def test_gated_conv_block_written_out() -> None:
    block = GatedConvBlock(6, 10)
    x = torch.randn(2, 5, 4, 6)
    a, z = F.linear(F.layer_norm(x, (6,)), block.in_proj.weight).split(10, dim=-1)
    a = F.conv2d(a.permute(0, 3, 1, 2), block.conv.weight, block.conv.bias, padding=1, groups=10).permute(0, 2, 3, 1)
    y = F.layer_norm(F.silu(a), (10,)) * F.silu(z)
    torch.testing.assert_close(block(x), x + F.linear(y, block.out_proj.weight))
