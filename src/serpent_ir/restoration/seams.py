"""How far an image that went through a model in parts is from the same in one piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from serpent_ir.restoration.evaluation import Evaluation

LARGEST_SIDE = 2048
SMALLEST_SIDE = 128
LEVEL = 1 / 255
FEW_BYTES = 2**20
"""Of a band, so that there are several."""


@dataclass(frozen=True)
class SeamError:
    """Of a part of an image, height x width, the differences of its results in parts and in one piece.

    largest: in [0, 1]. within: the share of the pixels at which no channel differs by more than 1/255.
    """

    height: int
    width: int
    largest: float
    within: float

    def __str__(self) -> str:
        return (
            f"beside one piece, on {self.width} x {self.height} pixels of the middle:"
            f" at most {self.largest * 255:.2g} of 255,"
            f" within 1 at {self.within:.2%} of the pixels"
        )


def measure_seams(
    evaluate: Callable[[Tensor, Evaluation], Tensor],
    image: Tensor,
    evaluation: Evaluation,
    whole_fits: Callable[[int, int], bool],
) -> SeamError | None:
    """Puts the middle of an image (C, H, W) through a model in parts and in one piece.

    evaluate: the model on a batch. whole_fits: whether so large an image can go in one piece. Tiles and bands are
    made smaller where the middle holds but one. None when the memory does not suffice for any comparison.
    """
    height, width = (min(size, LARGEST_SIDE) for size in image.shape[1:])
    while not whole_fits(height, width):
        height, width = -(-height // 2), -(-width // 2)
        if max(height, width) < SMALLEST_SIDE:
            return None
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    middle = image[None, :, top : top + height, left : left + width]
    if evaluation.way in ("bands", "disk"):
        evaluation = replace(evaluation, band_bytes=min(evaluation.band_bytes, FEW_BYTES))
    if evaluation.way == "tiles" and evaluation.tile > max(height, width) // 2:
        tile = max(max(height, width) // 2, 2)
        evaluation = replace(evaluation, tile=tile, overlap=min(evaluation.overlap, tile // 2))
    difference = (evaluate(middle, evaluation) - evaluate(middle, Evaluation("whole", 0))).abs().amax(dim=1)
    within = (difference <= LEVEL).to(torch.float64).mean().item()
    return SeamError(height, width, difference.max().item(), within)
