"""Generated images with edges at all scales, for trials without any photograph."""

from __future__ import annotations

import numpy as np
import torch

from serpent_ir.data.photographs import Photograph
from serpent_ir.data.seeding import derived_seed

SIDE = 160
DISCS = 250
RADII = (3.0, 60.0)


def generated_photographs(count: int, seed: int) -> list[Photograph]:
    """`count` dead-leaves images, 160 x 160: the same ones for an equal seed, each from (seed, its index).

    Discs of random colour fall on each other, radii distributed as 1 / r^3; like photographs, such images look alike at
    all scales (Lee, Mumford and Huang, "Occlusion models for natural images", 2001).
    """
    return [Photograph(f"generated-{index}", _dead_leaves(derived_seed(seed, index))) for index in range(count)]


def _dead_leaves(seed: int) -> torch.Tensor:
    random = np.random.default_rng(seed)
    smallest, largest = (radius**-2.0 for radius in RADII)
    radii = random.uniform(largest, smallest, DISCS) ** -0.5
    colours = random.integers(0, 256, (DISCS, 3), dtype=np.uint8)
    centres = random.uniform(0, SIDE, (DISCS, 2))
    rows, columns = np.ogrid[:SIDE, :SIDE]
    image = np.broadcast_to(colours[0], (SIDE, SIDE, 3)).copy()
    for radius, colour, (row, column) in zip(radii, colours, centres, strict=True):
        image[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = colour
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()
