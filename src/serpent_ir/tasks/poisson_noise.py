"""Photon noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from serpent_ir.tasks.options import Strength, TaskOption, check_strength, draw

SMALLEST_SIGMA = 1e-4
"""A fortieth of a level of 255. CUDA counts photons in 32 bits; less noise would be more of them."""


class PoissonNoise:
    """Noise of counted photons: 1 / sigma^2 of them at the value 1, in proportion elsewhere, each channel on its own.

    A value x becomes sigma^2 Poisson(x / sigma^2): its mean stays x, its variance is sigma^2 x, so `sigma` is the
    standard deviation at the value 1. `sigma`: a number, or (lowest, highest), between which each image of a batch gets
    its own; below 0.0001 an image stays as it is. Negative values stay as they are. Not clipped.

    Drawn on the generator's device and moved to the image's. Raises RangeError when `sigma` is negative.
    """

    OPTIONS: ClassVar[Mapping[str, TaskOption]] = {
        "sigma": TaskOption(0.05, 0.0, 1.0, "standard deviation at the value 1, of the range", varies=True),
    }

    def __init__(self, sigma: Strength) -> None:
        expected = "0 or a positive number"
        check_strength(sigma, lambda value: value >= 0, "photon noise got a standard deviation", expected)
        self.sigma = sigma

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        sigma = draw(self.sigma, image, generator).to(image.device).view(-1, 1, 1, 1)
        variance = sigma.clamp_min(SMALLEST_SIGMA) ** 2
        device = image.device if generator is None else generator.device
        photons = torch.poisson((image.clamp_min(0) / variance).to(device), generator).to(image.device)
        return torch.where((sigma >= SMALLEST_SIGMA) & (image > 0), photons * variance, image)
