"""Random crops of photographs: crop i of a step is a pure function of (seed, step, i) and the size."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from serpent_ir.data.photographs import Photograph, scale_down
from serpent_ir.data.seeding import derived_seed
from serpent_ir.errors import DataError, ImageReadError

CROP_STREAM = 4
DRAWS = 100
"""So many unreadable photographs in a row are taken for the state of all."""


class BatchKey(NamedTuple):
    """Which crops: the step they are for, the side of the squares in pixels, how many, and the first one's number.

    A step's batch is numbered from 0. Of several processes that share it, each asks for its own `first` to
    `first + batch - 1`.
    """

    step: int
    crop: int
    batch: int
    first: int = 0


class Collection(Protocol):
    """What crops are cut from: `Photographs`, or a list of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Photograph: ...


class CropBatches(Dataset[tuple[Any, ...]]):
    """`batches[BatchKey(step, crop, batch, first)]` is (step, uint8 (batch, 3, crop, crop)).

    Each crop is drawn on its own: a photograph (all equally likely), a scale within its `shrink` range, a place, one of
    the eight flips and quarter turns. Photographs smaller than the crop are continued by reflection. Crop number i of a
    step depends on `seed`, the step, i and the size alone: not on the crops and batches before it, the number of
    workers or processes, or a restart. In place of a photograph that cannot be read another one is drawn.

    Of photographs that come with a degraded version it is (step, clean, degraded), cut at the same places.

    Raises DataError when there is no photograph, or none that can be read.
    """

    def __init__(self, photographs: Collection, seed: int) -> None:
        if not len(photographs):
            raise DataError("no photograph to cut crops from")
        self.photographs = photographs
        self.seed = seed

    def __getitem__(self, key: BatchKey) -> tuple[Any, ...]:
        numbers = range(key.first, key.first + key.batch)
        crops = torch.stack([self._crop(key.step, number, key.crop) for number in numbers])
        return key.step, *crops.split(3, dim=1)

    def _crop(self, step: int, number: int, crop: int) -> Tensor:
        """uint8 (3, crop, crop), or of a pair (6, crop, crop)."""
        random = np.random.default_rng(derived_seed(self.seed, step, number, CROP_STREAM))
        photograph = self._photograph(random)
        lowest, highest = photograph.shrink
        factor = math.exp(random.uniform(math.log(lowest), math.log(highest)))
        height, width = photograph.pixels.shape[1:]
        side = max(crop, min(round(crop * factor), height, width))
        top, left = (int(random.integers(max(size - side, 0) + 1)) for size in (height, width))
        turn = int(random.integers(8))
        images = [photograph.pixels] if photograph.degraded is None else [photograph.pixels, photograph.degraded]
        pixels = torch.cat([image[:, top : top + side, left : left + side] for image in images])
        if min(height, width) < side:
            pixels = _reflect_to(pixels, side)
        return _turned(scale_down(pixels, crop, crop), turn)

    def _photograph(self, random: np.random.Generator) -> Photograph:
        for _ in range(DRAWS):
            try:
                return self.photographs[int(random.integers(len(self.photographs)))]
            except ImageReadError:
                continue  # logged by the photographs
        raise DataError(f"none of {DRAWS} photographs that were drawn can be read", "photographs that can be read")


def _reflect_to(pixels: Tensor, size: int) -> Tensor:
    """Continue (C, H, W) below and to the right by repeated reflection until both sides are at least `size`."""
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
