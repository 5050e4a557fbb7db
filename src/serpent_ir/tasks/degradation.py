"""A degradation: operators applied one after the other, under the name of a task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from serpent_ir.errors import DtypeError, ShapeError
from serpent_ir.tasks.gaussian_noise import AdditiveGaussianNoise
from serpent_ir.tasks.poisson_noise import PoissonNoise
from serpent_ir.tasks.quantization import quantize
from serpent_ir.tasks.resize import enlarge

NOISE = (AdditiveGaussianNoise, PoissonNoise)
"""Operators whose mean is the image itself."""


class Operator(Protocol):
    """One thing that happens to an image: (B, C, H, W) float -> the same, smaller, or with a mask as fourth channel."""

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Degradation:
    """A named task: `operators` applied in order to a clean batch.

    Calling it maps clean images (B, 3, H, W), float32 in [0, 1], any H, W >= 1, to what a model sees:
    (B, channels, H, W), float32, not clipped. It does so in two steps, since a file lies between them:

    - `damaged` applies the operators: what a camera delivers or a file holds, H and W divided by `enlarge`, rounded up.
    - `prepared` makes of that what a model sees: for super-resolution, enlarged to the size of the clean image.

    channels: 3, or 4 where the last one is the mask (1 where the image is missing). All randomness comes from
    `generator` (None: torch's default generator), so that an equal seed gives an equal result, bit for bit, on one
    device.
    """

    name: str
    options: dict[str, Any]
    operators: tuple[Operator, ...]
    enlarge: int = 1
    channels: int = 3

    def __call__(
        self, clean: Tensor, generator: torch.Generator | None = None, quantized_fraction: float = 0.0
    ) -> Tensor:
        """quantized_fraction: each image is, with that probability, clipped and rounded to 8 bits as a file would be.

        Raises ShapeError unless the batch is (B, 3, H, W), DtypeError unless it is float32.
        """
        damaged = self.damaged(clean, generator)
        if quantized_fraction > 0:
            device = clean.device if generator is None else generator.device
            chosen = torch.rand(clean.shape[0], generator=generator, device=device) < quantized_fraction
            damaged = torch.where(chosen.to(clean.device).view(-1, 1, 1, 1), quantize(damaged), damaged)
        return self.prepared(damaged, (clean.shape[2], clean.shape[3]))

    def damaged(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, channels, h, w), h = ceil(H / enlarge), w likewise. Raises as calling does."""
        if clean.ndim != 4 or clean.shape[1] != 3 or 0 in clean.shape:
            raise ShapeError(f"task {self.name!r} got a batch of shape {tuple(clean.shape)}", "(B, 3, H, W)")
        if clean.dtype != torch.float32:
            raise DtypeError(f"task {self.name!r} got a batch of {clean.dtype}", "torch.float32 in [0, 1]")
        damaged = clean
        for operator in self.operators:
            damaged = operator(damaged, generator)
        return damaged

    def prepared(self, damaged: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(B, channels, h, w) -> (B, channels, *size); size: that of the clean image; None: h, w times `enlarge`.

        Raises RangeError when `size` is not that of an image that `damaged` makes h x w of.
        """
        return enlarge(damaged, self.enlarge, size)

    def without_noise(self) -> Degradation:
        """The same without the noise operators of the outermost list: for linear operators, its mean over the noise."""
        return replace(self, operators=tuple(one for one in self.operators if not isinstance(one, NOISE)))
