"""Smaller, larger, and smaller-then-larger images, all by bicubic interpolation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from serpent_ir.errors import RangeError
from serpent_ir.tasks.border import reflect
from serpent_ir.tasks.options import Strength, TaskOption, check_strength, draw
from serpent_ir.tasks.transposed import transposed

# Pixels are squares: the corners of the image stay in place, not the centres of its corner pixels.
BICUBIC: dict[str, Any] = {"mode": "bicubic", "align_corners": False}


class Downscale:
    """Antialiased bicubic reduction by a whole `factor`: (B, C, H, W) -> (B, C, ceil(H / factor), ceil(W / factor)).

    The image is continued at the bottom and the right by reflection up to a multiple of the factor, so that every
    small pixel stands for factor x factor large ones. Not clipped: bicubic interpolation overshoots at edges.
    Raises RangeError unless the factor is a whole number from 1 on.
    """

    OPTIONS: ClassVar[Mapping[str, TaskOption]] = {
        "factor": TaskOption(2, 1, 16, "how many times smaller"),
    }

    def __init__(self, factor: int) -> None:
        if factor < 1 or factor != int(factor):
            raise RangeError(f"downscaling got the factor {factor}", "a whole number from 1 on")
        self.factor = int(factor)

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`generator` is not used."""
        missing = (-image.shape[2] % self.factor, -image.shape[3] % self.factor)
        whole = reflect(image, (0, 0), missing)
        size = (whole.shape[2] // self.factor, whole.shape[3] // self.factor)
        return F.interpolate(whole, size, antialias=True, **BICUBIC) if self.factor > 1 else image

    def adjoint(
        self, image: Tensor, generator: torch.Generator | None = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        """The transposed linear map A', with <A x, y> = <x, A' y>. `size`: (H, W) of x; None: `factor` times larger."""
        height, width = size or (self.factor * image.shape[2], self.factor * image.shape[3])
        return transposed(self, image, (*image.shape[:2], height, width))


class Rescale:
    """Down and up again: each image reduced `factor` times (antialiased bicubic), then enlarged to its size (bicubic).

    `factor`: a number, or (lowest, highest), between which each image of a batch gets its own. The small image has
    round(H / factor) x round(W / factor) pixels, at least one. Where that is the size of the image, it stays as it is.
    Raises RangeError when the factor is below 1.
    """

    OPTIONS: ClassVar[Mapping[str, TaskOption]] = {
        "factor": TaskOption(2.0, 1.0, 16.0, "how many times smaller the image was", varies=True),
    }

    def __init__(self, factor: Strength) -> None:
        check_strength(factor, lambda value: value >= 1, "rescaling got a factor", "1 or more")
        self.factor = factor

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self._rescaled(image, draw(self.factor, image, generator).tolist())

    def adjoint(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The transposed linear map A', with <A x, y> = <x, A' y>, for a generator in the same state."""
        factors = draw(self.factor, image, generator).tolist()
        return transposed(lambda x: self._rescaled(x, factors), image, image.shape)

    def _rescaled(self, image: Tensor, factors: list[float]) -> Tensor:
        size = (image.shape[2], image.shape[3])
        rescaled = []
        for single, factor in zip(image.split(1), factors, strict=True):
            small = (max(1, round(size[0] / factor)), max(1, round(size[1] / factor)))
            if small != size:
                single = F.interpolate(F.interpolate(single, small, antialias=True, **BICUBIC), size, **BICUBIC)
            rescaled.append(single)
        return torch.cat(rescaled)


def enlarge(image: Tensor, factor: int, size: tuple[int, int] | None = None) -> Tensor:
    """(B, C, h, w) -> (B, C, factor h, factor w) by bicubic interpolation, cropped to `size` (None: not cropped).

    Raises RangeError when `size` is not what `Downscale(factor)` makes h x w of.
    """
    height, width = image.shape[2:]
    wanted = size or (factor * height, factor * width)
    if (math.ceil(wanted[0] / factor), math.ceil(wanted[1] / factor)) != (height, width):
        raise RangeError(
            f"an image of {height} x {width} pixels to be enlarged {factor} times to {wanted[0]} x {wanted[1]}",
            f"a size from {factor * height - factor + 1} x {factor * width - factor + 1}"
            f" to {factor * height} x {factor * width}",
        )
    if factor == 1:
        return image
    enlarged = F.interpolate(image, (factor * height, factor * width), **BICUBIC)
    return enlarged[:, :, : wanted[0], : wanted[1]].contiguous()
