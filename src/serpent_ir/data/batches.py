"""Random crops of photographs: the batch of a step is a pure function of (seed, step, crop, batch size)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from serpent_ir.data.photographs import Photograph
from serpent_ir.data.seeding import derived_seed
from serpent_ir.errors import DataError


class BatchKey(NamedTuple):
    """Which batch: the step it is for, the side of its square crops in pixels, and how many there are."""

    step: int
    crop: int
    batch: int


class CropBatches(Dataset[tuple[int, Tensor]]):
    """`batches[BatchKey(step, crop, batch)]` is (step, uint8 (batch, 3, crop, crop)).

    Each crop is drawn on its own: a photograph (all equally likely), a scale within its `shrink` range, a place, one of
    the eight flips and quarter turns. Photographs smaller than the crop are continued by reflection. The whole batch
    depends on `seed` and the key alone: not on the batches before it, the number of workers, or a restart.

    Raises DataError when there is no photograph.
    """

    def __init__(self, photographs: Sequence[Photograph], seed: int) -> None:
        if not photographs:
            raise DataError("no photograph to cut crops from")
        self.photographs = photographs
        self.seed = seed

    def __getitem__(self, key: BatchKey) -> tuple[int, Tensor]:
        random = np.random.default_rng(derived_seed(self.seed, key.step))
        crops = [self._crop(random, key.crop) for _ in range(key.batch)]
        return key.step, torch.stack(crops)

    def _crop(self, random: np.random.Generator, crop: int) -> Tensor:
        photograph = self.photographs[int(random.integers(len(self.photographs)))]
        lowest, highest = photograph.shrink
        factor = math.exp(random.uniform(math.log(lowest), math.log(highest)))
        height, width = photograph.pixels.shape[1:]
        side = max(crop, min(round(crop * factor), height, width))
        top, left = (int(random.integers(max(size - side, 0) + 1)) for size in (height, width))
        pixels = photograph.pixels[:, top : top + side, left : left + side]
        if min(height, width) < side:
            pixels = _reflect_to(pixels, side)
        if side > crop:
            pixels = _scale_down(pixels, crop)
        return _turned(pixels, int(random.integers(8)))


def _scale_down(pixels: Tensor, size: int) -> Tensor:
    """Antialiased bicubic scaling of uint8 (3, H, W) to (3, size, size)."""
    scaled = torch.nn.functional.interpolate(
        pixels.unsqueeze(0).float(), size=(size, size), mode="bicubic", align_corners=False, antialias=True
    )
    return scaled[0].round_().clamp_(0, 255).to(torch.uint8)


def _reflect_to(pixels: Tensor, size: int) -> Tensor:
    """Continue (3, H, W) below and to the right by repeated reflection until both sides are at least `size`."""
    for axis in (1, 2):
        length = pixels.shape[axis]
        if length < size:
            shown = np.pad(np.arange(length), (0, size - length), mode="reflect")
            pixels = pixels.index_select(axis, torch.from_numpy(shown))
    return pixels


def _turned(pixels: Tensor, turn: int) -> Tensor:
    """One of the eight symmetries of the square: `turn` % 4 quarter turns, mirrored from 4 on."""
    turned = torch.rot90(pixels, turn % 4, dims=(1, 2))
    return turned.flip(2) if turn >= 4 else turned.contiguous()
