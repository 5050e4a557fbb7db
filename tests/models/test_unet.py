"""U-Net: its parts against torch's own, its variants."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from serpent_ir.errors import RangeError
from serpent_ir.models import create_model
from serpent_ir.models.unet import InstanceNorm


def test_instance_norm_is_that_of_torch() -> None:
    x = torch.randn(2, 3, 5, 4) + torch.tensor([5.0, 0.0, -2.0])[:, None, None]
    torch.testing.assert_close(InstanceNorm()(x), nn.InstanceNorm2d(3)(x), rtol=1e-5, atol=1e-6)
    assert torch.equal(InstanceNorm()(x[:, :, :1, :1]), torch.zeros(2, 3, 1, 1))


@torch.no_grad()
def test_forward_written_out() -> None:
    """One pooling, every step in torch's functions."""
    model = create_model("unet-32", channels=4, poolings=1, in_channels=3, out_channels=2).eval()
    weights = list(model.state_dict().values())
    d0a, d0b, d1a, d1b, up, u0a, u0b, head, bias = weights

    def conv(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(F.instance_norm(F.conv2d(x, weight, padding=1)), 0.2)

    image = torch.rand(2, 3, 8, 6)
    level0 = conv(conv(image, d0a), d0b)
    level1 = conv(conv(F.avg_pool2d(level0, 2), d1a), d1b)
    enlarged = F.leaky_relu(F.instance_norm(F.conv_transpose2d(level1, up, stride=2)), 0.2)
    normal = F.conv2d(conv(conv(torch.cat([enlarged, level0], 1), u0a), u0b), head, bias)
    pixels = image[:, :2].flatten(2)
    expected = normal * pixels.std(2, correction=0)[..., None, None] + pixels.mean(2)[..., None, None]
    torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("poolings", "multiple"), [(0, 1), (2, 4), (4, 16)])
def test_poolings(poolings: int, multiple: int) -> None:
    model = create_model("unet-32", channels=2, poolings=poolings)
    assert model.config.size_multiple == multiple
    assert model(torch.rand(1, 3, 7, 18)).shape == (1, 3, 7, 18)


@torch.no_grad()
def test_brightness_and_contrast_are_those_of_the_image() -> None:
    """InstanceNorm alone would make nearly the same of an image and its pale copy, but for the zeros at the border."""
    model, image = create_model("unet-32", channels=4), torch.rand(1, 3, 64, 64)
    error = model(0.5 * image + 0.3) - (0.5 * model(image) + 0.3)
    assert error.abs().mean() < 0.03
    plain = torch.full((1, 3, 16, 16), 0.7)
    torch.testing.assert_close(model(plain), plain)


@pytest.mark.parametrize(
    "overrides", [{"channels": 0}, {"in_channels": 0}, {"out_channels": 4}, {"poolings": -1}, {"poolings": 11}]
)
def test_values_that_make_no_model(overrides: dict[str, int]) -> None:
    with pytest.raises(RangeError, match=next(iter(overrides))):
        create_model("unet-32", **overrides)
