"""Additive white Gaussian noise."""

from __future__ import annotations

import torch
from torch import Tensor

from serpent_ir.errors import RangeError


class AdditiveGaussianNoise:
    """Adds independent normal noise of standard deviation `sigma` (of the [0, 1] range) to every value; not clipped.

    The noise is drawn on the generator's device and moved to the image's: a CPU generator gives the same noise on
    every device. Raises RangeError when `sigma` is negative.
    """

    def __init__(self, sigma: float) -> None:
        if not sigma >= 0:
            raise RangeError(f"Gaussian noise got a standard deviation of {sigma}", "0 or a positive number")
        self.sigma = sigma

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        device = image.device if generator is None else generator.device
        noise = torch.randn(image.shape, generator=generator, device=device, dtype=image.dtype)
        return image + self.sigma * noise.to(image.device)
