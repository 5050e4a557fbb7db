"""Blur of a camera that moves during the exposure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from serpent_ir.tasks.kernel_blur import KernelBlur
from serpent_ir.tasks.kernels import PATH_NUMBERS, path_kernels
from serpent_ir.tasks.options import Strength, TaskOption, check_strength, draw, uniform


class MotionBlur(KernelBlur):
    """Motion blur along a smooth random path for each image, see `kernels.path_kernels`.

    `length` of the path in pixels: a number, or (lowest, highest), between which each image of a batch gets its own.
    Raises RangeError when it is negative.
    """

    OPTIONS: ClassVar[Mapping[str, TaskOption]] = {
        "length": TaskOption((5.0, 25.0), 0.0, 200.0, "length of the camera's path in pixels", varies=True),
    }

    def __init__(self, length: Strength) -> None:
        expected = "0 or a positive number of pixels"
        check_strength(length, lambda value: value >= 0, "motion blur got a length", expected)
        self.length = length
        self.longest = length[1] if isinstance(length, tuple) else length

    def kernels(self, image: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        lengths = draw(self.length, image, generator)
        shapes = uniform((len(image), PATH_NUMBERS), image, generator)
        return path_kernels(lengths, shapes, self.longest), lengths > 0
