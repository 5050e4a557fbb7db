from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from serpent_ir.errors import DtypeError, ShapeError
from serpent_ir.metrics import HIGHEST_PSNR, capped_psnr, psnr


def noisy_pair(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=generator)
    return target + 0.1 * torch.randn(shape, generator=generator), target


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 13, 5), (3, 3, 64, 40)])
def test_equals_the_definition_per_image(shape: tuple[int, ...]) -> None:
    image, target = noisy_pair(*shape)
    error = image.numpy().astype(np.float64) - target.numpy().astype(np.float64)
    expected = [-10 * math.log10(np.mean(one**2)) for one in error]
    value = psnr(image, target)
    assert value.dtype == torch.float64
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6)


def test_convention_peak_is_one_and_values_are_not_clipped() -> None:
    target = torch.zeros(1, 3, 4, 4)
    assert psnr(target + 0.1, target).item() == pytest.approx(20.0, abs=1e-5)
    assert psnr(target - 0.1, target).item() == pytest.approx(20.0, abs=1e-5)
    assert psnr(target + 1.0, target).item() == pytest.approx(0.0, abs=1e-5)


def test_is_accurate_for_nearly_equal_images() -> None:
    target = torch.full((1, 3, 32, 32), 0.5, dtype=torch.float64)
    assert psnr(target + 1e-7, target).item() == pytest.approx(140.0, abs=1e-4)


def test_equal_images_are_infinitely_good_and_nan_is_not_hidden() -> None:
    image, target = noisy_pair(3, 3, 12, 12)
    image[0] = target[0]
    image[2, 1, 3, 4] = torch.nan
    values = psnr(image, target)
    assert values[0] == torch.inf and torch.isfinite(values[1]) and torch.isnan(values[2])


def test_convention_in_means_an_image_counts_60_db_at_most() -> None:
    target = torch.full((4, 3, 4, 4), 0.5, dtype=torch.float64)
    offsets = torch.tensor([0.0, 1e-4, 1e-2, torch.nan], dtype=torch.float64).view(-1, 1, 1, 1)
    values = capped_psnr(target + offsets, target)
    assert values[:2].tolist() == [HIGHEST_PSNR] * 2 == [60.0] * 2
    assert values[2].item() == pytest.approx(40) and torch.isnan(values[3])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_takes_any_floating_type(dtype: torch.dtype) -> None:
    image, target = (batch.to(dtype) for batch in noisy_pair(2, 3, 8, 8))
    torch.testing.assert_close(psnr(image, target), psnr(image.double(), target.double()), rtol=0, atol=0)


def test_carries_no_gradient() -> None:
    image, target = noisy_pair(1, 3, 8, 8)
    assert not psnr(image.requires_grad_(), target).requires_grad


def test_refuses_integers_and_wrong_shapes() -> None:
    image, target = noisy_pair(2, 3, 8, 8)
    with pytest.raises(DtypeError, match=r"target is torch\.uint8"):
        psnr(image, (target * 255).to(torch.uint8))
    for wrong in (image[0], image[:, :2], image.permute(0, 2, 3, 1), image[:0], image[..., :0]):
        with pytest.raises(ShapeError, match="B, 3, H, W"):
            psnr(wrong, wrong)
    with pytest.raises(ShapeError, match="equal shapes"):
        psnr(image[:1], target)
