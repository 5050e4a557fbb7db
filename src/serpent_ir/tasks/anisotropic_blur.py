"""Gaussian blur that is stronger in one direction than across it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from serpent_ir.tasks.kernel_blur import KernelBlur
from serpent_ir.tasks.kernels import gaussian_kernels
from serpent_ir.tasks.options import Strength, TaskOption, check_strength, draw, uniform

REACH = 4
"""The kernel ends after so many standard deviations."""


class AnisotropicBlur(KernelBlur):
    """Gaussian of standard deviation `sigma` (pixels) in a random direction, and `ratio` times that across it.

    Both: a number, or (lowest, highest), between which each image of a batch gets its own; all directions are equally
    likely. Raises RangeError when `sigma` is negative, or `ratio` not in [0, 1].
    """

    OPTIONS: ClassVar[Mapping[str, TaskOption]] = {
        "sigma": TaskOption(3.0, 0.0, 50.0, "standard deviation along the direction of the blur, pixels", varies=True),
        "ratio": TaskOption((0.3, 1.0), 0.0, 1.0, "standard deviation across, as a share of that along", varies=True),
    }

    def __init__(self, sigma: Strength, ratio: Strength = (0.3, 1.0)) -> None:
        expected = "0 or a positive number of pixels"
        check_strength(sigma, lambda value: value >= 0, "anisotropic blur got a standard deviation", expected)
        check_strength(ratio, lambda value: 0 <= value <= 1, "anisotropic blur got a ratio", "0 to 1")
        self.sigma, self.ratio = sigma, ratio
        self.reach = math.ceil(REACH * (sigma[1] if isinstance(sigma, tuple) else sigma))

    def kernels(self, image: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        sigma, ratio = draw(self.sigma, image, generator), draw(self.ratio, image, generator)
        angle = math.pi * uniform((len(image),), image, generator)
        return gaussian_kernels(sigma, ratio * sigma, angle, self.reach), sigma > 0
