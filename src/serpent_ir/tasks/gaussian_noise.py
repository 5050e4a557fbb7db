"""Additive white Gaussian noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from serpent_ir.tasks.options import Strength, TaskOption, check_strength, draw


class AdditiveGaussianNoise:
    """Adds independent normal noise of standard deviation `sigma` (of the [0, 1] range) to every value; not clipped.

    `sigma`: a number, or (lowest, highest), between which each image of a batch gets its own.

    The noise is drawn on the generator's device and moved to the image's: a CPU generator gives the same noise on
    every device. Raises RangeError when `sigma` is negative.
    """

    OPTIONS: ClassVar[Mapping[str, TaskOption]] = {
        "sigma": TaskOption(0.05, 0.0, 1.0, "standard deviation of the noise, of the range", varies=True),
    }

    def __init__(self, sigma: Strength) -> None:
        expected = "0 or a positive number"
        check_strength(sigma, lambda value: value >= 0, "Gaussian noise got a standard deviation", expected)
        self.sigma = sigma

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        sigma = draw(self.sigma, image, generator).to(image.device).view(-1, 1, 1, 1)
        device = image.device if generator is None else generator.device
        noise = torch.randn(image.shape, generator=generator, device=device, dtype=image.dtype)
        return image + sigma * noise.to(image.device)
