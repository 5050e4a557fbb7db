"""Structural similarity."""

from __future__ import annotations

import torch
from torch import Tensor

from serpent_ir.errors import ShapeError
from serpent_ir.metrics.pairs import as_float64_pair

WINDOW = 11
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each image (Wang, Bovik, Sheikh, Simoncelli 2004, equation 13), averaged over channels.

    Gaussian window of 11 x 11 pixels with standard deviation 1.5 that sums to 1, K1 = 0.01, K2 = 0.03, data range 1,
    population (not sample) variances, no down-sampling before, float64 throughout.

    The border: the average runs over the (H - 10) x (W - 10) positions at which the whole window lies inside the image,
    as in the authors' program and in most published tables. torchmetrics (1.9.0) mirrors the image by 5 pixels and
    averages over all H x W positions, which gives other digits from the third or so on; on an image mirrored in that
    way this function equals it. (Its grouped 2-D convolution takes seconds per photograph in float64, and in float32
    the variances of flat areas cancel; hence the separable window here.)

    Args:
        image: (B, 3, H, W) or, for luma, (B, 1, H, W), any floating type, in [0, 1], H and W at least 11.
        target: the clean images, of the same shape and range.

    Returns:
        (B,) float64, 1 for equal images.

    Raises:
        ShapeError: an image smaller than the window, or see `as_float64_pair`.
        DtypeError, DeviceError: see `as_float64_pair`.
    """
    x, y = as_float64_pair(image, target)
    height, width = x.shape[-2:]
    if min(height, width) < WINDOW:
        raise ShapeError(
            f"images are {height} x {width}", f"at least {WINDOW} x {WINDOW}, the size of SSIM's window", "Use psnr."
        )
    mean_x, mean_y = window_average(x), window_average(y)
    variances = window_average(x * x + y * y) - mean_x**2 - mean_y**2
    covariance = window_average(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    structure = (2 * covariance + C2) / (variances + C2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def window_average(values: Tensor) -> Tensor:
    """The Gaussian-weighted average in every window inside (B, C, H, W): (B, C, H - 10, W - 10)."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    bell = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights: list[float] = (bell / bell.sum()).tolist()
    for axis in (-2, -1):
        length = values.shape[axis] - WINDOW + 1
        average = weights[0] * values.narrow(axis, 0, length)
        for start in range(1, WINDOW):
            average.add_(values.narrow(axis, start, length), alpha=weights[start])
        values = average
    return values
