"""sRGB's transfer curve: coded values <-> linear light."""

from __future__ import annotations

import torch
from torch import Tensor


def to_linear(coded: Tensor) -> Tensor:
    """Coded sRGB values, floating point, any shape -> linear light: 0 and 1 stay, 0.5 becomes 0.214.

    Source: IEC 61966-2-1. Beyond [0, 1] the curve goes on: above 1 as it is, below 0 mirrored, f(-x) = -f(x).
    """
    amount = coded.abs()
    light = torch.where(amount <= 0.04045, amount / 12.92, ((amount + 0.055) / 1.055) ** 2.4)
    return light.copysign(coded)


def from_linear(light: Tensor) -> Tensor:
    """The inverse of `to_linear`, up to rounding and to the standard's constants, which fit to about 3e-8."""
    amount = light.abs()
    coded = torch.where(amount <= 0.0031308, amount * 12.92, 1.055 * amount ** (1 / 2.4) - 0.055)
    return coded.copysign(light)
