from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor

from serpent_ir.errors import RangeError
from serpent_ir.tasks import GaussianBlur

AWKWARD_SIZES = [(1, 1), (1, 7), (2, 3), (13, 5), (29, 31), (64, 300)]


def scipy_blur(image: Tensor, taps: int, sigma: float) -> np.ndarray:
    """The same blur by scipy, whose border mode "mirror" is reflection without repeating the edge, repeated."""
    offsets = np.arange(taps) - taps // 2
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    blurred = correlate1d(image.numpy(), kernel, axis=-1, mode="mirror")
    return correlate1d(blurred, kernel, axis=-2, mode="mirror")


@pytest.mark.parametrize("height,width", AWKWARD_SIZES)
def test_equals_an_independent_blur(height: int, width: int) -> None:
    image = torch.rand(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    blurred = GaussianBlur(61, 3.0)(image)
    assert blurred.shape == image.shape
    np.testing.assert_allclose(blurred.numpy(), scipy_blur(image, 61, 3.0), atol=1e-13)


def test_float32_stays_close_to_float64() -> None:
    image = torch.rand(1, 3, 70, 200, generator=torch.Generator().manual_seed(2))
    blur = GaussianBlur(61, 3.0)
    assert blur(image).dtype == torch.float32
    assert (blur(image).double() - blur(image.double())).abs().max() < 1e-6


@pytest.mark.parametrize("height,width", AWKWARD_SIZES)
def test_adjoint(height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(1, 2, height, width, dtype=torch.float64, generator=generator) for _ in range(2))
    blur = GaussianBlur(21, 2.5)
    left, right = (blur(x) * y).sum(), (x * blur.adjoint(y)).sum()
    assert abs(left - right) < 1e-10 * max(1.0, abs(left))


def test_constant_image_stays() -> None:
    image = torch.full((1, 3, 17, 40), 0.3)
    assert torch.allclose(GaussianBlur(61, 3.0)(image), image, atol=1e-6)


def test_single_tap_changes_nothing() -> None:
    image = torch.rand(1, 3, 5, 6)
    assert torch.equal(GaussianBlur(1, 3.0)(image), image)


@pytest.mark.parametrize("taps,sigma", [(60, 3.0), (0, 3.0), (-1, 3.0), (61, -1.0), (61, float("nan"))])
def test_impossible_kernel_is_refused(taps: int, sigma: float) -> None:
    with pytest.raises(RangeError):
        GaussianBlur(taps, sigma)
