"""Beyond its border an image continues by reflection: which pixel is shown where."""

from __future__ import annotations

import torch
from torch import Tensor


def reflected_index(length: int, before: int, after: int, device: torch.device) -> Tensor:
    """The positions 0..length-1 that the samples -before..length-1+after of a reflected line show.

    The edge sample is not repeated (c b | a b c | b a); the reflection is repeated as often as needed; a line of one
    sample continues as a constant.
    """
    positions = torch.arange(-before, length + after, device=device)
    period = max(2 * (length - 1), 1)
    positions = positions % period
    return torch.minimum(positions, period - positions) if length > 1 else torch.zeros_like(positions)


def reflect(image: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """(..., H, W) continued by before[0] rows above, after[0] below, before[1] columns to the left, after[1] right."""
    for axis, first, last in zip((-2, -1), before, after, strict=True):
        if first or last:
            image = image.index_select(axis, reflected_index(image.shape[axis], first, last, image.device))
    return image
