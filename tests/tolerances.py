"""One table: how far a result may be from the float64 oracle, as the largest error over the largest value."""

from __future__ import annotations

import torch
from torch import Tensor

RELATIVE: dict[torch.dtype, float] = {
    torch.float64: 1e-11,
    torch.float32: 1e-4,
    torch.bfloat16: 1e-2,  # half a unit in the last place of an 8 bit significand is 4e-3
    torch.float16: 1.5e-3,
}


def relative_error(value: Tensor, oracle: Tensor) -> float:
    """max |value - oracle| / max |oracle|; infinite when something is not a number."""
    assert value.shape == oracle.shape
    scale = oracle.abs().max().clamp_min(1e-30)
    error = ((value.double() - oracle.double()).abs().max() / scale).item()
    return error if error == error else float("inf")
