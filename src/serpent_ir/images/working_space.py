"""The colours of the program: sRGB, coded as in files, without limits. Values beyond [0, 1] are colours beyond sRGB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from serpent_ir.images.icc import Profile, parse_profile
from serpent_ir.images.linear_light import from_linear, to_linear

LIKE_SRGB = 2 / 255
"""A profile whose colours differ from those of sRGB by no more than this, in coded values, counts as sRGB."""

LATTICE_STEPS = 17
VALUES_AT_ONCE = 1 << 18


class Unconverted(Enum):
    """Why a picture with a colour profile keeps its values as they are."""

    SRGB = "the profile is sRGB, or nearly"
    TABLES = "the profile is made of tables, or of a curve that does not rise, which have no exact inverse"
    UNUSABLE = "the profile is damaged, or one of other channels"


@dataclass(frozen=True, eq=False)
class Conversion:
    """Between the coded values of a profile and those of sRGB, both ways; one the inverse of the other."""

    profile: Profile

    def to_srgb(self, coded: Tensor) -> Tensor:
        """float32 (1 or 3, H, W), any values -> float32, the same shape."""
        assert self.profile.curves is not None
        curves, matrix = self.profile.curves, self.profile.matrix

        def convert(values: np.ndarray) -> np.ndarray:
            light = np.stack([curve.light(one) for curve, one in zip(curves, values, strict=True)])
            return from_linear(torch.from_numpy(matrix @ light)).numpy()

        return piece_by_piece(convert, coded)

    def from_srgb(self, pixels: Tensor) -> Tensor:
        """float32 (1 or 3, H, W), any values -> float32, the same shape."""
        assert self.profile.curves is not None and self.profile.matrix is not None
        curves, matrix = self.profile.curves, np.linalg.inv(self.profile.matrix)

        def convert(values: np.ndarray) -> np.ndarray:
            light = matrix @ to_linear(torch.from_numpy(values)).numpy()
            return np.stack([curve.coded(one) for curve, one in zip(curves, light, strict=True)])

        return piece_by_piece(convert, pixels)


@lru_cache(maxsize=8)
def conversion_of(content: bytes, channels: int) -> Conversion | Unconverted:
    """What is to be done with pictures of `channels` colour channels (1 or 3) that have the ICC profile `content`."""
    try:
        profile = parse_profile(content)
    except ValueError:
        return Unconverted.UNUSABLE
    if profile.channels != channels:
        return Unconverted.UNUSABLE
    if profile.curves is None:
        return Unconverted.TABLES
    conversion = Conversion(profile)
    steps = torch.linspace(0, 1, LATTICE_STEPS)
    lattice = torch.stack(torch.meshgrid(*[steps] * channels, indexing="ij")).reshape(channels, 1, -1)
    difference = (conversion.to_srgb(lattice) - lattice).abs().max().item()
    return Unconverted.SRGB if difference <= LIKE_SRGB else conversion


def piece_by_piece(convert: Callable[[np.ndarray], np.ndarray], values: Tensor) -> Tensor:
    """`convert`, which maps float64 (C, N) to the same, of float32 (C, H, W), a piece at a time to save memory."""
    flat = values.detach().cpu().reshape(values.shape[0], -1).numpy()
    converted = np.empty_like(flat)
    for start in range(0, flat.shape[1], VALUES_AT_ONCE):
        piece = slice(start, start + VALUES_AT_ONCE)
        converted[:, piece] = convert(flat[:, piece].astype(np.float64))
    return torch.from_numpy(converted).reshape(values.shape)
