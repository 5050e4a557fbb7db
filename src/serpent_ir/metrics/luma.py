"""Luma, on which super-resolution is usually scored."""

from __future__ import annotations

import torch
from torch import Tensor

from serpent_ir.errors import DtypeError, ShapeError

FOOT = 16.0
WEIGHTS = (65.481, 128.553, 24.966)
"""ITU-R BT.601 for 8 bits: black is 16, and red, green and blue together add 219."""


def luma(image: Tensor) -> Tensor:
    """Y = (16 + 65.481 R + 128.553 G + 24.966 B) / 255 of an image (B, 3, H, W) in [0, 1]: (B, 1, H, W).

    ITU-R BT.601, as 8-bit images are coded: black is 16/255, white 235/255. It is not rounded. Figures on this Y, with
    a peak of 1 (255 of 255), are what super-resolution papers call "PSNR on the Y channel".

    Returns the type of `image`. Raises ShapeError or DtypeError for another kind of tensor.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise ShapeError(f"image has shape {tuple(image.shape)}", "(B, 3, H, W)")
    if not image.is_floating_point():
        raise DtypeError(f"image is {image.dtype}", "a floating-point tensor in [0, 1]")
    weights = torch.tensor(WEIGHTS, dtype=image.dtype, device=image.device).view(1, 3, 1, 1)
    return ((image * weights).sum(dim=1, keepdim=True) + FOOT) / 255
