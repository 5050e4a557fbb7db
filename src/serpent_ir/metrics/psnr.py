"""Peak signal-to-noise ratio."""

from __future__ import annotations

import torch
from torch import Tensor

from serpent_ir.metrics.pairs import as_float64_pair


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, in dB: 10 log10(1 / MSE), the mean over channels and pixels together.

    Values are compared as they are: neither clipped to [0, 1] nor rounded, no border is cut off, and colour is RGB as
    coded in the file (not luma). The peak is 1.

    Args:
        image: (B, 3, H, W), any floating type, in [0, 1].
        target: the clean images, of the same shape and range.

    Returns:
        (B,) float64; infinite where an image equals its target, NaN where it holds NaN.

    Raises:
        DtypeError, ShapeError, DeviceError: see `as_float64_pair`.
    """
    image, target = as_float64_pair(image, target)
    return -10 * torch.log10((image - target).square().mean((1, 2, 3)))
