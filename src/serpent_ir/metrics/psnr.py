"""Peak signal-to-noise ratio."""

from __future__ import annotations

import torch
from torch import Tensor

from serpent_ir.metrics.pairs import as_float64_pair

HIGHEST_PSNR = 60.0
"""In dB, about what 8 bits tell apart: in a mean, an image that is met more closely would count for all the others."""


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, in dB: 10 log10(1 / MSE), the mean over channels and pixels together.

    Values are compared as they are: neither clipped to [0, 1] nor rounded, no border is cut off. The peak is 1.

    Args:
        image: (B, 3, H, W) or, for luma, (B, 1, H, W), any floating type, in [0, 1].
        target: the clean images, of the same shape and range.

    Returns:
        (B,) float64; infinite where an image equals its target, NaN where it holds NaN.

    Raises:
        DtypeError, ShapeError, DeviceError: see `as_float64_pair`.
    """
    image, target = as_float64_pair(image, target)
    return -10 * torch.log10((image - target).square().mean((1, 2, 3)))


def capped_psnr(image: Tensor, target: Tensor) -> Tensor:
    """`psnr`, but at most `HIGHEST_PSNR`: what means over images, and differences between models, are made of.

    An image that a task left as it is has an infinite PSNR; left out, or in, it would decide the mean. Shapes, types
    and errors are those of `psnr`; NaN stays NaN.
    """
    return psnr(image, target).clamp(max=HIGHEST_PSNR)
