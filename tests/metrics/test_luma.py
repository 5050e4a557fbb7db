from __future__ import annotations

import pytest
import torch

from serpent_ir.errors import DtypeError, ShapeError
from serpent_ir.metrics import luma, psnr, ssim


def test_convention_bt601_of_8_bits() -> None:
    """The rows of the matrix in ITU-R BT.601 for black, white, red, green, blue: 16, 235, 81, 145, 41 of 255."""
    colours = [(0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    image = torch.tensor(colours, dtype=torch.float64).view(5, 3, 1, 1).expand(5, 3, 2, 3)
    y = luma(image)
    assert y.shape == (5, 1, 2, 3) and y.dtype == torch.float64
    assert (255 * y[:, 0, 0, 0]).round().tolist() == [16, 235, 81, 145, 41]


def test_metrics_take_it() -> None:
    image, target = torch.rand(2, 3, 16, 20), torch.rand(2, 3, 16, 20)
    y, wanted = luma(image), luma(target)
    expected = psnr(y.expand(-1, 3, -1, -1), wanted.expand(-1, 3, -1, -1))
    torch.testing.assert_close(psnr(y, wanted), expected, rtol=1e-12, atol=0)
    assert not torch.allclose(ssim(y, wanted), ssim(image, target))


def test_convention_a_gray_step_is_219_of_255_as_large() -> None:
    dark, light = torch.full((1, 3, 4, 4), 0.4), torch.full((1, 3, 4, 4), 0.5)
    gain = psnr(luma(dark), luma(light)) - psnr(dark, light)
    torch.testing.assert_close(gain, 20 * torch.log10(torch.tensor([255 / 219])).double(), rtol=1e-4, atol=1e-4)


def test_refuses_other_tensors() -> None:
    with pytest.raises(ShapeError, match=r"\(B, 3, H, W\)"):
        luma(torch.rand(3, 4, 4))
    with pytest.raises(DtypeError, match="uint8"):
        luma(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
