"""What a task did to one image, as far as that can be found: strengths that vary, and the noise as it may have been."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from serpent_ir.restoration.noise_level import SMALLEST_SIDE, noise_level
from serpent_ir.tasks import Degradation, quantize
from serpent_ir.tasks.degradation import NOISE
from serpent_ir.tasks.repeat import VaryingStrength, repeatable, varying_strengths, with_strength

STEPS = 16
"""A strength that varies is looked for in so many steps of its range, then in as many around the best of them.
Whole numbers are all tried: the residual at JPEG's true quality is a narrow minimum among others."""

LARGEST = 1024
JPEG_BLOCK = 16
"""Pixels in each direction that are compressed together, colour at half resolution."""


def why_unknown(degradation: Degradation, image: Tensor) -> str:
    """Why nobody knows what happened to an image (C, H, W); empty when it is known, or can be found."""
    known = repeatable(degradation)
    if known is None:
        return f"task {degradation.name!r} draws its operators anew for each image"
    noises = [isinstance(operator, NOISE) for operator in known.operators]
    varying = varying_strengths(known)
    if sum(not noises[strength.place] for strength in varying) > 1:
        return f"task {degradation.name!r} has several operators whose strengths vary"
    noise = [strength for strength in varying if noises[strength.place]]
    if noise and (sum(noises) > 1 or not noises[-1] or noise[0].operator != "gaussian_noise"):
        return f"task {degradation.name!r} has noise of varying strength that is not Gaussian noise at the end"
    if noise and min(image.shape[1:]) < SMALLEST_SIDE:
        return f"an image of {image.shape[2]} x {image.shape[1]} pixels does not show how strong its noise is"
    return ""


def with_found_strengths(
    degradation: Degradation, result: Tensor, image: Tensor
) -> tuple[Degradation, dict[str, float]]:
    """`degradation` with each strength that varies as it was for this image, and these by name."""
    found = {}
    for strength in varying_strengths(degradation):
        if isinstance(degradation.operators[strength.place], NOISE):
            value = noise_strength(degradation, strength, result, image)
        else:
            value = best_strength(degradation, strength, result, image)
        degradation = with_strength(degradation, strength, value)
        found[f"{strength.operator} {strength.option}".replace("_", " ")] = value
    return degradation, found


def best_strength(degradation: Degradation, strength: VaryingStrength, result: Tensor, image: Tensor) -> float:
    """The one with which the result without noise is the nearest to the image in the mean square, in its middle."""
    result, image = middle(result, image, degradation.enlarge)

    def error(value: float) -> float:
        again = with_strength(degradation.without_noise(), strength, value).damaged(result[None])[0]
        return float((image - again).square().mean())

    if strength.whole:
        return min(map(float, range(math.ceil(strength.lowest), math.floor(strength.highest) + 1)), key=error)
    step = (strength.highest - strength.lowest) / STEPS
    coarse = min(evenly_spaced(strength.lowest, strength.highest), key=error)
    return min(evenly_spaced(max(strength.lowest, coarse - step), min(strength.highest, coarse + step)), key=error)


def middle(result: Tensor, image: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """At most LARGEST x LARGEST pixels of the image, on its grid of JPEG blocks, and the same part of the result."""
    top, left = (max(0, side - LARGEST) // 2 // JPEG_BLOCK * JPEG_BLOCK for side in image.shape[1:])
    bottom, right = top + LARGEST, left + LARGEST
    part = result[:, factor * top : factor * bottom, factor * left : factor * right]
    return part, image[:, top:bottom, left:right]


def evenly_spaced(lowest: float, highest: float) -> list[float]:
    """Both ends and the values between them, in STEPS steps."""
    return [lowest + (highest - lowest) * number / STEPS for number in range(STEPS + 1)]


def noise_strength(degradation: Degradation, strength: VaryingStrength, result: Tensor, image: Tensor) -> float:
    """The strength that the noise of the image has; corrected by what is seen of such noise on the result, since
    clipping hides some of it, and fine detail passes for it.
    """
    seen = noise_level(image)
    again = noise_level(as_delivered(drawn(with_strength(degradation, strength, seen), result), image))
    return seen * seen / again if again > 0 else seen


def drawn(degradation: Degradation, result: Tensor) -> Tensor:
    """(3, H, W) -> (3, h, w): degraded, with equal noise each time."""
    return degradation.damaged(result[None], torch.Generator().manual_seed(0))[0]


def as_delivered(damaged: Tensor, image: Tensor) -> Tensor:
    """`damaged`, clipped if `image` lies in [0, 1], and rounded to 8 bits if it lies on their levels too."""
    if float(image.min()) < 0 or float(image.max()) > 1:
        return damaged
    rounded = bool(((image * 255).round() - image * 255).abs().max() < 1e-3)
    return quantize(damaged) if rounded else damaged.clamp(0, 1)
