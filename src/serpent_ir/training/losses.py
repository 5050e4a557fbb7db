"""Distances between a restored and a clean batch that training makes small."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CHARBONNIER_EPSILON = 1e-3


def charbonnier(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean of sqrt(difference^2 + epsilon^2) with epsilon = 1e-3, a smooth L1 (Charbonnier et al. 1994)."""
    return torch.sqrt((restored - clean).square() + CHARBONNIER_EPSILON**2).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": torch.nn.functional.l1_loss,
    "mse": torch.nn.functional.mse_loss,
    "charbonnier": charbonnier,
}
