from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from serpent_ir.errors import RangeError
from serpent_ir.tasks import Downscale, Rescale, enlarge
from serpent_ir.tasks.options import draw

SIZES = [(1, 1), (1, 7), (13, 5), (16, 24), (33, 40)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [1, 2, 8])
def test_down_and_enlarge_have_the_sizes_they_say(factor: int, size: tuple[int, int]) -> None:
    small = Downscale(factor)(torch.rand(2, 3, *size))
    assert small.shape[2:] == (-(-size[0] // factor), -(-size[1] // factor))
    assert enlarge(small, factor, size).shape[2:] == size
    assert enlarge(small, factor).shape[2:] == (factor * small.shape[2], factor * small.shape[3])


def test_downscaling_is_antialiased_and_continues_by_reflection() -> None:
    image = torch.rand(1, 3, 13, 16)
    whole = torch.cat([image, image[:, :, [11, 10, 9]]], dim=2)
    expected = F.interpolate(whole, (4, 4), mode="bicubic", align_corners=False, antialias=True)
    assert torch.equal(Downscale(4)(image), expected)
    checkerboard = (torch.arange(32).view(-1, 1) + torch.arange(32)).remainder(2).float().expand(1, 3, -1, -1)
    assert (Downscale(4)(checkerboard) - 0.5).abs().max() < 0.02


def test_smooth_images_survive() -> None:
    wave = torch.sin(torch.arange(64) / 20).view(1, 1, 1, -1).expand(1, 3, 64, -1)
    inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    assert (enlarge(Downscale(4)(wave), 4) - wave)[inner].abs().max() < 0.01
    assert (Rescale(3.0)(wave) - wave)[inner].abs().max() < 0.01


@pytest.mark.parametrize("size", SIZES)
def test_adjoint(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    down, rescale = Downscale(4), Rescale((1.0, 3.0))
    y, z = torch.randn_like(down(x)), torch.randn_like(x)
    assert abs((down(x) * y).sum() - (x * down.adjoint(y, size=size)).sum()) < 1e-10
    left = (rescale(x, torch.Generator().manual_seed(1)) * z).sum()
    assert abs(left - (x * rescale.adjoint(z, torch.Generator().manual_seed(1))).sum()) < 1e-10


def test_rescaling_by_1_changes_no_bit_and_each_image_has_its_factor() -> None:
    images = torch.rand(1, 3, 24, 30).expand(5, -1, -1, -1)
    assert torch.equal(Rescale(1.0)(images), images)
    rescaled = Rescale((1.0, 4.0))(images, torch.Generator().manual_seed(2))
    for image, factor in zip(
        rescaled, draw((1.0, 4.0), images, torch.Generator().manual_seed(2)).tolist(), strict=True
    ):
        assert torch.equal(image, Rescale(factor)(images[:1])[0])


def test_impossible_factors_and_sizes_are_refused() -> None:
    for factor in (0, 1.5):
        with pytest.raises(RangeError, match="whole number"):
            Downscale(factor)  # type: ignore[arg-type]
    with pytest.raises(RangeError, match="1 or more"):
        Rescale(0.5)
    with pytest.raises(RangeError, match="from 17 x 9 to 24 x 16"):
        enlarge(torch.rand(1, 3, 3, 2), 8, (16, 16))
