"""How large a residual is around each pixel, and such a map in colours."""

from __future__ import annotations

import torch
from torch import Tensor

from serpent_ir.tasks import GaussianBlur

WINDOW_SIGMA = 4.0
"""Standard deviation in pixels of the window: it averages as much as 4 pi 4^2, about 200 pixels do. The local RMS of
white noise in three channels is then within 9 % of the true one in 99.7 % of all places, in one (gray) within 15 %."""

DARKEST = -2.0
BRIGHTEST = 2.0
"""The ends of the colours: 2^-2 and 2^2 times what is expected."""

COLOURS = (
    (59, 76, 192),
    (98, 130, 234),
    (141, 176, 254),
    (184, 208, 249),
    (221, 221, 221),
    (245, 196, 173),
    (244, 154, 123),
    (222, 96, 77),
    (180, 4, 38),
)
"""Evenly spaced, of 255: Moreland 2009, "Diverging color maps for scientific visualization", cool to warm."""


def local_rms(values: Tensor) -> Tensor:
    """(C, H, W) -> (1, H, W): the root of the mean square over the channels and a Gaussian window."""
    window = GaussianBlur(8 * int(WINDOW_SIGMA) + 1, WINDOW_SIGMA)
    return window(values.square().mean(dim=0)[None, None])[0].clamp_min(0).sqrt()


def in_colours(ratio: Tensor) -> Tensor:
    """(1, H, W) -> (3, H, W) in [0, 1]: blue at a quarter and less, light gray at 1, red at 4 and more, NaN black.

    Colours follow the logarithm of the ratio and are interpolated linearly between those of the table.
    """
    table = torch.tensor(COLOURS, dtype=torch.float32, device=ratio.device) / 255
    place = (ratio[0].log2().clamp(DARKEST, BRIGHTEST) - DARKEST) / (BRIGHTEST - DARKEST) * (len(COLOURS) - 1)
    unknown = place.isnan()
    below = place.nan_to_num().floor().clamp(0, len(COLOURS) - 2)
    share = (place.nan_to_num() - below).unsqueeze(-1)
    colours = table[below.long()].lerp(table[below.long() + 1], share)
    return colours.masked_fill(unknown.unsqueeze(-1), 0).permute(2, 0, 1).contiguous()
