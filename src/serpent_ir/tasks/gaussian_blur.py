"""Gaussian blur with a reflected border, and its adjoint."""

from __future__ import annotations

import torch
from torch import Tensor

from serpent_ir.errors import RangeError

TILE = 128
"""Output samples computed by one row of the banded matrix product; any value gives the same blur."""


class GaussianBlur:
    """Separable Gaussian blur: `taps` x `taps` kernel of standard deviation `sigma`, both in pixels.

    The image continues beyond its border by reflection without repeating the edge pixel (c b | a b c | b a), repeated
    as often as needed, so images smaller than the kernel are fine too; a line of one pixel continues as a constant.
    The kernel sums to one: a constant image stays as it is.

    Raises RangeError when `taps` is not a positive odd number or `sigma` is not positive.
    """

    def __init__(self, taps: int, sigma: float) -> None:
        if taps < 1 or taps % 2 == 0:
            raise RangeError(f"Gaussian blur got a kernel of {taps} taps", "a positive odd number")
        if not sigma > 0:
            raise RangeError(f"Gaussian blur got a standard deviation of {sigma}", "a positive number of pixels")
        self.radius = taps // 2
        offsets = torch.arange(-self.radius, self.radius + 1, dtype=torch.float64)
        weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
        self.kernel = weights / weights.sum()

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Blur (B, C, H, W) float; nothing is random, `generator` is not used."""
        blurred = self._filter(_reflect(image, self.radius))
        return self._filter(_reflect(blurred.mT, self.radius)).mT.contiguous()

    def adjoint(self, image: Tensor) -> Tensor:
        """The transposed linear map A', with <A x, y> = <x, A' y>; (B, C, H, W) float."""
        spread = _fold_reflection(self._filter(_pad_zeros(image.mT, 2 * self.radius)), self.radius)
        return _fold_reflection(self._filter(_pad_zeros(spread.mT, 2 * self.radius)), self.radius).contiguous()

    def _filter(self, lines: Tensor) -> Tensor:
        """Weighted sums along the last axis without padding: length n + 2 radius -> n.

        One matrix product of overlapping windows with a banded matrix: several times faster on a CPU than a
        single-channel convolution, which no library tunes.
        """
        length = lines.shape[-1] - 2 * self.radius
        tile = min(TILE, length)
        missing = -length % tile
        windows = torch.nn.functional.pad(lines, (0, missing)).unfold(-1, tile + 2 * self.radius, tile)
        band = self._band(tile).to(device=lines.device, dtype=lines.dtype)
        filtered = windows.reshape(-1, tile + 2 * self.radius) @ band
        return filtered.reshape(*lines.shape[:-1], length + missing)[..., :length]

    def _band(self, tile: int) -> Tensor:
        """Matrix (tile + 2 radius, tile) whose column j holds the kernel from row j on."""
        rows = torch.arange(tile).unsqueeze(0) + torch.arange(self.kernel.numel()).unsqueeze(1)
        band = self.kernel.new_zeros(tile + 2 * self.radius, tile)
        return band.scatter_(0, rows, self.kernel.unsqueeze(1).expand(-1, tile))


def _reflected_index(length: int, radius: int, device: torch.device) -> Tensor:
    """Positions 0..length-1 that the samples -radius..length-1+radius of a repeatedly reflected line show."""
    positions = torch.arange(-radius, length + radius, device=device)
    period = max(2 * (length - 1), 1)
    positions = positions % period
    return torch.minimum(positions, period - positions) if length > 1 else torch.zeros_like(positions)


def _reflect(lines: Tensor, radius: int) -> Tensor:
    return lines.index_select(-1, _reflected_index(lines.shape[-1], radius, lines.device))


def _fold_reflection(padded: Tensor, radius: int) -> Tensor:
    """Transpose of `_reflect`: every sample of the border is added to the position it was copied from."""
    length = padded.shape[-1] - 2 * radius
    folded = padded.new_zeros(*padded.shape[:-1], length)
    return folded.index_add_(-1, _reflected_index(length, radius, padded.device), padded)


def _pad_zeros(lines: Tensor, amount: int) -> Tensor:
    return torch.nn.functional.pad(lines, (amount, amount))
