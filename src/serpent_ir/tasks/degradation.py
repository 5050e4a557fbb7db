"""A degradation: operators applied one after the other, under the name of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from serpent_ir.errors import DtypeError, ShapeError


class Operator(Protocol):
    """One thing that happens to an image: (B, C, H, W) float -> the same shape."""

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Degradation:
    """A named task: `operators` applied in order to a clean batch.

    Calling it maps clean images (B, 3, H, W), float32 in [0, 1], any H, W >= 1, to degraded ones of the same shape and
    type, not clipped. All randomness comes from `generator` (None: torch's default generator), so that an equal seed
    gives an equal result, bit for bit, on one device.

    Raises ShapeError unless the batch is (B, 3, H, W), DtypeError unless it is float32.
    """

    name: str
    options: dict[str, Any]
    operators: tuple[Operator, ...]

    def __call__(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if clean.ndim != 4 or clean.shape[1] != 3 or 0 in clean.shape:
            raise ShapeError(f"task {self.name!r} got a batch of shape {tuple(clean.shape)}", "(B, 3, H, W)")
        if clean.dtype != torch.float32:
            raise DtypeError(f"task {self.name!r} got a batch of {clean.dtype}", "torch.float32 in [0, 1]")
        degraded = clean
        for operator in self.operators:
            degraded = operator(degraded, generator)
        return degraded
