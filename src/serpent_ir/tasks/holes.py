"""Missing parts: boxes and free-form strokes, with the mask as a channel of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from serpent_ir.tasks.options import Strength, TaskOption, check_strength, draw

MOST_SHAPES = 200
LARGEST_SHAPE = 0.1  # of the image
LARGEST_SEED = 2**62


class Holes:
    """(B, C, H, W) float -> (B, C + 1, H, W): 0 in every channel where the image is missing; the last one is the mask.

    The mask is 1 where the image is missing, else 0. `missing`, the share of an image that is missing: a number, or
    (lowest, highest), between which each image of a batch gets its own. Boxes and strokes, see `random_mask`, are added
    until that share is reached; where the last stroke ends may exceed it slightly.

    The masks are drawn on the CPU, from a seed for each image that the generator gives: a CPU generator gives the same
    ones on every device. Raises RangeError unless the share is in [0, 1).
    """

    OPTIONS: ClassVar[Mapping[str, TaskOption]] = {
        "missing": TaskOption((0.05, 0.4), 0.0, 0.9, "share of the image that is missing", varies=True),
    }

    def __init__(self, missing: Strength) -> None:
        check_strength(missing, lambda value: 0 <= value < 1, "holes got a share", "0 or more, below 1")
        self.missing = missing

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mask = self._mask(image, generator)
        return torch.cat([image.masked_fill(mask, 0), mask.to(image.dtype)], dim=1)

    def adjoint(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The transposed map A' of the linear part A: <A x, y> = <x, A' y>, for a generator in the same state.

        A makes x 0 where it is missing, and is 0 in the mask's channel, which does not depend on x. A' takes
        (B, C + 1, H, W) to (B, C, H, W).
        """
        return image[:, :-1].masked_fill(self._mask(image, generator), 0)

    def _mask(self, image: Tensor, generator: torch.Generator | None) -> Tensor:
        """(B, 1, H, W) bool on the device of `image`."""
        shares = draw(self.missing, image, generator).tolist()
        device = image.device if generator is None else generator.device
        seeds = torch.randint(LARGEST_SEED, (len(image),), generator=generator, device=device).tolist()
        masks = [
            random_mask(image.shape[2], image.shape[3], share, np.random.default_rng(seed))
            for share, seed in zip(shares, seeds, strict=True)
        ]
        return torch.from_numpy(np.stack(masks)).unsqueeze(1).to(image.device)


def random_mask(height: int, width: int, share: float, random: np.random.Generator) -> np.ndarray:
    """bool (height, width), True in about `share` of it: boxes and strokes, equally likely, until the share is reached.

    Each shape takes between a fifth and all of what is still to be covered, at most a tenth of the image.
    """
    mask = np.zeros((height, width), dtype=bool)
    for _ in range(MOST_SHAPES):
        left = share * mask.size - np.count_nonzero(mask)
        if left < 0.5:
            break
        add_shape = add_box if random.random() < 0.5 else add_stroke
        add_shape(mask, min(left * random.uniform(0.2, 1.0), LARGEST_SHAPE * mask.size), random)
    return mask


def add_box(mask: np.ndarray, area: float, random: np.random.Generator) -> None:
    """A box of about `area` pixels inside the image, its sides in a ratio from 1/3 to 3."""
    ratio = math.exp(random.uniform(-math.log(3), math.log(3)))
    height = min(max(round(math.sqrt(area * ratio)), 1), mask.shape[0])
    width = min(max(round(area / height), 1), mask.shape[1])
    top, left = (int(random.integers(most - side + 1)) for most, side in zip(mask.shape, (height, width), strict=True))
    mask[top : top + height, left : left + width] = True


def add_stroke(mask: np.ndarray, area: float, random: np.random.Generator) -> None:
    """A stroke that wanders through the image until it has covered about `area` more pixels, or leaves the image.

    Its width is 2 to 10 % of the shorter side of the image, at least one pixel; it is made of straight segments of 5
    to 25 % of that side, with round joints, each turned from the one before by a normal angle (standard deviation 0.6).
    """
    side = min(mask.shape)
    radius = max(side * random.uniform(0.02, 0.1), 1.0) / 2
    end = np.array([random.uniform(0, length - 1) for length in mask.shape])
    heading = random.uniform(0, 2 * math.pi)
    enough = np.count_nonzero(mask) + area
    while np.count_nonzero(mask) < enough and bool((end >= 0).all() and (end < mask.shape).all()):
        start, length = end, max(side * random.uniform(0.05, 0.25), 1.0)
        end = start + length * np.array([math.sin(heading), math.cos(heading)])
        add_segment(mask, start, end, radius)
        heading += random.normal(0, 0.6)


def add_segment(mask: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> None:
    """All pixels whose centre is at most `radius` from the line between two points (row, column)."""
    first = np.clip(np.floor(np.minimum(start, end) - radius).astype(int), 0, mask.shape)
    last = np.clip(np.ceil(np.maximum(start, end) + radius).astype(int) + 1, 0, mask.shape)
    rows, columns = np.ogrid[first[0] : last[0], first[1] : last[1]]
    along = end - start
    share = ((rows - start[0]) * along[0] + (columns - start[1]) * along[1]) / (along @ along)
    share = np.clip(share, 0, 1)
    distance = (rows - start[0] - share * along[0]) ** 2 + (columns - start[1] - share * along[1]) ** 2
    mask[first[0] : last[0], first[1] : last[1]] |= distance <= radius**2
