"""Blur of a lens that is out of focus."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from serpent_ir.tasks.kernel_blur import KernelBlur
from serpent_ir.tasks.kernels import disc_kernels
from serpent_ir.tasks.options import Strength, TaskOption, check_strength, draw


class DefocusBlur(KernelBlur):
    """Convolution with a disc, see `kernels.disc_kernels`. Up to half a pixel, a disc is a single pixel.

    `radius` in pixels: a number, or (lowest, highest), between which each image of a batch gets its own.
    Raises RangeError when it is negative.
    """

    OPTIONS: ClassVar[Mapping[str, TaskOption]] = {
        "radius": TaskOption(3.0, 0.0, 100.0, "radius of the disc of confusion in pixels", varies=True),
    }

    def __init__(self, radius: Strength) -> None:
        expected = "0 or a positive number of pixels"
        check_strength(radius, lambda value: value >= 0, "defocus got a radius", expected)
        self.radius = radius
        self.reach = math.ceil(radius[1] if isinstance(radius, tuple) else radius)

    def kernels(self, image: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        radii = draw(self.radius, image, generator)
        return disc_kernels(radii, self.reach), radii > 0
