"""Kernels of blurs, one for each image: (B, size, size), float64, sum 1, the middle pixel is the origin.

A kernel is a map of weights; rows go down, columns to the right. Radii and lengths are in pixels. Where the strength
is 0 the kernel is 1 in the middle and 0 elsewhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST_DEVIATION = 1e-3
"""Pixels; below it, a Gaussian is a single pixel in float64 anyway."""
SAMPLES_PER_PIXEL = 4
HARMONICS = 3


def gaussian_kernels(major: Tensor, minor: Tensor, angle: Tensor, radius: int) -> Tensor:
    """Gaussians with standard deviations `major` along the direction `angle` (radians) and `minor` across it.

    All three are (B,). The Gaussian is sampled at the centres of the pixels up to `radius` and normalised.
    """
    rows, columns = _grid(radius, major.device)
    angle = angle.double().view(-1, 1, 1)
    along = columns * angle.cos() + rows * angle.sin()
    across = rows * angle.cos() - columns * angle.sin()
    major, minor = (deviation.double().clamp_min(SMALLEST_DEVIATION).view(-1, 1, 1) for deviation in (major, minor))
    return _normalised(torch.exp(-0.5 * ((along / major) ** 2 + (across / minor) ** 2)))


def disc_kernels(radii: Tensor, radius: int) -> Tensor:
    """Discs of `radii` (B,): the image of a point out of focus. `radius`: of the kernel, at least the largest of them.

    At distance d from the middle the weight is clamp(r + 1/2 - d, 0, 1), which softens the edge over one pixel.
    """
    rows, columns = _grid(radius, radii.device)
    distance = torch.sqrt(rows**2 + columns**2)
    return _normalised((radii.double().view(-1, 1, 1) + 0.5 - distance).clamp(0, 1))


def path_kernels(lengths: Tensor, shapes: Tensor, longest: float) -> Tensor:
    """Smooth random paths of `lengths` (B,), at most `longest`: what a hand that shakes draws during the exposure.

    shapes: (B, PATH_NUMBERS), uniform in [0, 1), decide direction, curvature and speed. With t in [0, 1] the time, the
    heading is 2 pi u + sum_k a_k / k sin(pi k t + 2 pi b_k), and the logarithm of the speed, up to a constant,
    1/2 sum_k c_k / k sin(pi k t + 2 pi d_k), k = 1, 2, 3, with a_k uniform in [-2, 2] and c_k in [-1, 1]. The path is
    scaled to its length, its mean over time is the middle of the kernel, and each of its samples, four a pixel on
    average or more, is shared among the four nearest pixels bilinearly, so that the centre of mass is the middle.
    """
    samples = SAMPLES_PER_PIXEL * math.ceil(longest) + 17
    radius = math.ceil(longest) + 1
    times = torch.linspace(0, 1, samples, dtype=torch.float64, device=lengths.device)
    order = torch.arange(1, HARMONICS + 1, dtype=torch.float64, device=lengths.device).view(-1, 1)
    first, turns, phases, speeds, speed_phases = shapes.double().unsqueeze(2).split([1, *[HARMONICS] * 4], dim=1)
    turn = (4 * turns - 2) / order * torch.sin(math.pi * order * times + 2 * math.pi * phases)
    heading = 2 * math.pi * first.squeeze(1) + turn.sum(dim=1)
    pace = (2 * speeds - 1) / order * torch.sin(math.pi * order * times + 2 * math.pi * speed_phases)
    speed = torch.exp(0.5 * pace.sum(dim=1))
    speed = speed / speed[:, 1:].sum(dim=1, keepdim=True) * lengths.double().unsqueeze(1)
    speed[:, 0] = 0
    places = torch.stack([speed * heading.sin(), speed * heading.cos()]).cumsum(dim=2)
    places = places - places.mean(dim=2, keepdim=True)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64, device=lengths.device)
    rows, columns = (1 - (offsets.view(-1, 1) - places.unsqueeze(2)).abs()).clamp_min(0)
    return _normalised(rows @ columns.mT)


PATH_NUMBERS = 1 + 4 * HARMONICS
"""How many random numbers decide the shape of a path."""


def _grid(radius: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column offsets, (size, 1) and (size,)."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64, device=device)
    return offsets.view(-1, 1), offsets


def _normalised(kernels: Tensor) -> Tensor:
    return kernels / kernels.sum(dim=(1, 2), keepdim=True)
