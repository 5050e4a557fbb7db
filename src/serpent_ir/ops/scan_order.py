"""The orders in which a feature map is read as a sequence (paper, section 2.3 and figure 2).

Order 0 goes row by row, order 1 column by column, orders 2 and 3 are 0 and 1 backwards. K = 4 directions use all of
them, K = 2 the orders 0 and 2, K = 1 the order 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

ORDERS_OF_DIRECTIONS: dict[int, tuple[int, ...]] = {1: (0,), 2: (0, 2), 4: (0, 1, 2, 3)}


def scan_order(order: int, height: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """Pixel indices, row * width + column, in the sequence of the given order: int64 of shape (height * width,)."""
    pixels = torch.arange(height * width, device=device).view(height, width)
    sequence = pixels.t().reshape(-1) if order % 2 else pixels.reshape(-1)
    return sequence.flip(0) if order >= 2 else sequence


def inverse_order(sequence: Tensor) -> Tensor:
    """The step at which each pixel is visited: `x[:, sequence][:, inverse_order(sequence)]` is `x`."""
    inverse = torch.empty_like(sequence)
    inverse[sequence] = torch.arange(len(sequence), device=sequence.device)
    return inverse
