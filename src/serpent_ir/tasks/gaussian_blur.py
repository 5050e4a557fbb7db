"""Gaussian blur with a reflected border, and its adjoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from serpent_ir.errors import RangeError
from serpent_ir.tasks.border import reflected_index
from serpent_ir.tasks.kernels import SMALLEST_DEVIATION
from serpent_ir.tasks.options import Strength, TaskOption, check_strength, draw, drawing_device

TILE = 128
"""Output samples computed by one row of the banded matrix product; any value gives the same blur."""


class GaussianBlur:
    """Separable Gaussian blur: `taps` x `taps` kernel of standard deviation `sigma`, both in pixels.

    `sigma`: a number, or (lowest, highest), between which each image of a batch gets its own.

    The image continues beyond its border by reflection without repeating the edge pixel (c b | a b c | b a), repeated
    as often as needed, so images smaller than the kernel are fine too; a line of one pixel continues as a constant.
    The kernel sums to one: a constant image stays as it is. With a deviation of 0 any image does.

    Raises RangeError when `taps` is not a positive odd number or `sigma` is negative.
    """

    OPTIONS: ClassVar[Mapping[str, TaskOption]] = {
        "sigma": TaskOption(3.0, 0.0, 50.0, "standard deviation in pixels", varies=True),
        "taps": TaskOption(61, 1, 1001, "odd width of the kernel in pixels"),
    }

    def __init__(self, taps: int, sigma: Strength) -> None:
        if taps < 1 or taps % 2 == 0:
            raise RangeError(f"Gaussian blur got a kernel of {taps} taps", "a positive odd number")
        expected = "0 or a positive number of pixels"
        check_strength(sigma, lambda value: value >= 0, "Gaussian blur got a standard deviation", expected)
        self.radius = taps // 2
        self.sigma = sigma

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Blur (B, C, H, W) float; `generator` decides the deviations when they vary."""
        kernels = self._kernels(image, generator)
        blurred = _filter(_reflect(image, self.radius), kernels)
        return _filter(_reflect(blurred.mT, self.radius), kernels).mT.contiguous()

    def adjoint(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The transposed linear map A', with <A x, y> = <x, A' y>, for a generator in the same state."""
        kernels = self._kernels(image, generator)
        spread = _fold_reflection(_filter(_pad_zeros(image.mT, 2 * self.radius), kernels), self.radius)
        return _fold_reflection(_filter(_pad_zeros(spread.mT, 2 * self.radius), kernels), self.radius).contiguous()

    def _kernels(self, image: Tensor, generator: torch.Generator | None) -> Tensor:
        """(B, taps), or (1, taps) for one blur of all images: computed in float64, in the type and place of `image`."""
        device = drawing_device(image, generator)
        offsets = torch.arange(-self.radius, self.radius + 1, dtype=torch.float64, device=device)
        if isinstance(self.sigma, tuple):
            sigma = draw(self.sigma, image, generator).double()
        else:
            sigma = torch.tensor([self.sigma], dtype=torch.float64, device=device)
        weights = torch.exp(-0.5 * (offsets / sigma.clamp_min(SMALLEST_DEVIATION).unsqueeze(1)) ** 2)
        return (weights / weights.sum(dim=1, keepdim=True)).to(image.device, image.dtype)


def _filter(lines: Tensor, kernels: Tensor) -> Tensor:
    """Weighted sums along the last axis of (B, ..., n + taps - 1) without padding: length n. kernels: (B or 1, taps).

    One matrix product of overlapping windows with a banded matrix: several times faster on a CPU than a
    single-channel convolution, which no library tunes.
    """
    reach = kernels.shape[1] - 1
    length = lines.shape[-1] - reach
    tile = min(TILE, length)
    missing = -length % tile
    windows = torch.nn.functional.pad(lines, (0, missing)).unfold(-1, tile + reach, tile)
    filtered = windows.reshape(len(kernels), -1, tile + reach) @ _bands(kernels, tile)
    return filtered.reshape(*lines.shape[:-1], length + missing)[..., :length]


def _bands(kernels: Tensor, tile: int) -> Tensor:
    """Matrices (B, tile + taps - 1, tile) whose column j holds the kernel from row j on."""
    count, taps = kernels.shape
    positions = torch.arange(tile, device=kernels.device) + torch.arange(taps, device=kernels.device).unsqueeze(1)
    bands = kernels.new_zeros(count, tile + taps - 1, tile)
    return bands.scatter_(1, positions.expand(count, -1, -1), kernels.unsqueeze(2).expand(-1, -1, tile))


def _reflect(lines: Tensor, radius: int) -> Tensor:
    return lines.index_select(-1, reflected_index(lines.shape[-1], radius, radius, lines.device))


def _fold_reflection(padded: Tensor, radius: int) -> Tensor:
    """Transpose of `_reflect`: every sample of the border is added to the position it was copied from."""
    length = padded.shape[-1] - 2 * radius
    folded = padded.new_zeros(*padded.shape[:-1], length)
    return folded.index_add_(-1, reflected_index(length, radius, radius, padded.device), padded)


def _pad_zeros(lines: Tensor, amount: int) -> Tensor:
    return torch.nn.functional.pad(lines, (amount, amount))
