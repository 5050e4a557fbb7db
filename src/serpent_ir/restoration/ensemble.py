"""The mean over the eight ways to turn and flip an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ORIENTATIONS = 8
"""Of a square: four quarter turns, each as it is or mirrored (the dihedral group of order 8)."""


def turned(image: Tensor, orientation: int) -> Tensor:
    """(..., H, W) in one of the orientations 0..7; 0 is the image itself.

    Mirrored left to right from 4 on, then turned anticlockwise by `orientation` % 4 quarters, by an odd number of which
    H and W change places.
    """
    mirrored = image.flip(-1) if orientation >= 4 else image
    return torch.rot90(mirrored, orientation % 4, (-2, -1)).contiguous()


def turned_back(image: Tensor, orientation: int) -> Tensor:
    """What `turned` made of an image, back as it was."""
    upright = torch.rot90(image, -orientation % 4, (-2, -1))
    return upright.flip(-1) if orientation >= 4 else upright


def ensembled(model: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """The mean of what `model` gives for `image` in all orientations, each turned back: float32.

    model: maps (B, C, H, W), of any H and W, to (B, 3, H', W'), where H' and W' are equal multiples of H and W. One
    that does not care how an image lies gives the same as without the mean, bit for bit. It is called eight times, for
    one orientation after the other; beside the model's own memory, only the mean so far is kept.

    Source: the enhanced prediction of Timofte, Rothe and Van Gool 2016, "Seven ways to improve example-based single
    image super resolution"; Lim et al. 2017 (EDSR) call it self-ensemble.
    """
    mean = model(image).to(torch.float32, copy=True)
    for orientation in range(1, ORIENTATIONS):
        output = turned_back(model(turned(image, orientation)), orientation)
        mean.lerp_(output.to(torch.float32), 1 / (orientation + 1))
    return mean
