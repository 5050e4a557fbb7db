from __future__ import annotations

import math

import pytest
import torch

from serpent_ir import metrics
from serpent_ir.errors import RangeError, ShapeError, UnknownNameError
from serpent_ir.evaluation import Scoring


def pair(height: int = 34, width: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    clean = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    return (clean + 0.1).clamp(0, 1), clean


def test_is_the_metrics_of_one_image() -> None:
    image, clean = pair()
    scores = Scoring()(image, clean)
    assert scores.psnr == metrics.psnr(image[None], clean[None]).item()
    assert scores.ssim == metrics.ssim(image[None], clean[None]).item()
    assert scores.lpips is None


def test_luma_and_border() -> None:
    image, clean = pair()
    inside = [one[None, :, 5:-5, 5:-5].double() for one in (image, clean)]
    scores = Scoring(channel="y", border=5)(image, clean)
    y = [metrics.luma(one) for one in inside]
    assert scores.psnr == metrics.psnr(*y).item() and scores.ssim == metrics.ssim(*y).item()
    assert Scoring(border=5)(image, clean).psnr == metrics.psnr(*inside).item()


def test_lpips_is_on_rgb_inside_the_border() -> None:
    heads = [torch.rand(width) for width in (64, 192, 384, 256, 256)]
    shapes = {"features.0": (64, 3, 11, 11), "features.3": (192, 64, 5, 5), "features.6": (384, 192, 3, 3)}
    shapes |= {"features.8": (256, 384, 3, 3), "features.10": (256, 256, 3, 3)}
    state = {f"{name}.weight": 0.05 * torch.randn(shape) for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
    lpips = metrics.Lpips(state, heads)
    image, clean = pair(40, 45)
    expected = lpips(image[None, :, 3:-3, 3:-3], clean[None, :, 3:-3, 3:-3]).item()
    assert Scoring("y", 3, lpips)(image, clean).lpips == expected > 0


def test_convention_an_exact_image_counts_60_db() -> None:
    scores = Scoring()(pair()[1], pair()[1])
    assert scores.psnr == 60 and scores.ssim == pytest.approx(1)


def test_refuses_images_that_cannot_be_scored() -> None:
    image, clean = pair()
    for value in (math.nan, math.inf):
        with pytest.raises(RangeError, match="not finite"):
            Scoring()(image.index_fill(1, torch.tensor([3]), value), clean)
    with pytest.raises(ShapeError, match="at least 11 x 11"):
        Scoring(border=12)(image, clean)
    with pytest.raises(ShapeError, match="border of 17"):
        Scoring(border=17)(image, clean)
    with pytest.raises(UnknownNameError, match="rgb, y"):
        Scoring(channel="cb")
    with pytest.raises(RangeError, match="border -1"):
        Scoring(border=-1)
