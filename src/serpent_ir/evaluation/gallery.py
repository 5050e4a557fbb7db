"""The pictures worth looking at: kept small, while the evaluation runs."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from serpent_ir.errors import RangeError
from serpent_ir.evaluation.results import CLEAN, DEGRADED, ImageScores

CROP_SIDE = 128
WHOLE_SIDE = 384


@dataclass(frozen=True)
class Box:
    """A crop, in pixels of the image."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One photograph: its scores, and for every row and "clean" the crop and the whole image, scaled down: float32
    (3, h, w) in [0, 1]. difference: the PSNR of the first model minus that of the second, or of the degraded image."""

    scores: ImageScores
    difference: float
    box: Box
    crops: dict[str, Tensor]
    wholes: dict[str, Tensor]


class Gallery:
    """Takes the pictures of each image as they come, and keeps at most `limit` exhibits: those at both ends of the
    difference. Its memory does not grow with the folder.

    Raises RangeError unless `limit` is an even number, at least 0 (all are let go).
    """

    def __init__(self, limit: int) -> None:
        if limit < 0 or limit % 2:
            raise RangeError(f"{limit} pictures", "0 or a positive even number, half of them from each end")
        self.limit = limit
        self.exhibits: list[Exhibit] = []
        """In the order of their difference, the largest first."""

    def add(self, scores: ImageScores, pictures: Mapping[str, Tensor]) -> None:
        """pictures: (3, H, W) of every row and "clean", in the order of the page's columns."""
        if self.limit == 0:
            return
        rows = [row for row in pictures if row not in (DEGRADED, CLEAN)]
        compared = rows[:2] if len(rows) > 1 else [rows[0], DEGRADED]
        box = most_different([pictures[row] for row in (rows if len(rows) > 1 else compared)])
        exhibit = Exhibit(
            scores,
            scores.scores[compared[0]].psnr - scores.scores[compared[1]].psnr,
            box,
            {row: cropped(picture, box) for row, picture in pictures.items()},
            {row: scaled_down(picture) for row, picture in pictures.items()},
        )
        insort(self.exhibits, exhibit, key=lambda one: (-one.difference, one.scores.name))
        if len(self.exhibits) > self.limit:
            del self.exhibits[self.limit // 2]


def most_different(images: Sequence[Tensor]) -> Box:
    """The square of 128 pixels a side (less in small images) in which images (3, H, W) differ most from their mean."""
    stack = torch.stack([image.clamp(0, 1) for image in images]).double()
    energy = (stack - stack.mean(dim=0)).square().sum(dim=(0, 1))
    height, width = min(CROP_SIDE, energy.shape[0]), min(CROP_SIDE, energy.shape[1])
    sums = torch.nn.functional.pad(energy, (1, 0, 1, 0)).cumsum(0).cumsum(1)
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    position = int(inside.argmax())
    return Box(position // inside.shape[1], position % inside.shape[1], height, width)


def cropped(image: Tensor, box: Box) -> Tensor:
    part = image[:, box.top : box.top + box.height, box.left : box.left + box.width]
    return part.detach().cpu().float().clamp(0, 1).clone()


def scaled_down(image: Tensor) -> Tensor:
    """The whole image, at most 384 pixels a side."""
    factor = min(1.0, WHOLE_SIDE / max(image.shape[-2:]))
    size = [max(1, round(side * factor)) for side in image.shape[-2:]]
    small = image.detach().cpu().float().clamp(0, 1)[None]
    return torch.nn.functional.interpolate(small, size, mode="bilinear", antialias=True, align_corners=False)[0]
