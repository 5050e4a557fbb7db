"""Arrays and tensors of the usual layouts -> float32 (channels, H, W) in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from serpent_ir.errors import DtypeError, RangeError, ShapeError

if TYPE_CHECKING:
    from serpent_ir.images import Picture

INTEGER_MAXIMUM = {torch.uint8: 255, torch.uint16: 65535}


def to_pixels(image: np.ndarray | Tensor, channels: int = 3) -> Tensor:
    """(channels, H, W) or (H, W, channels) -> float32 (channels, H, W), on the device of `image`.

    channels: 3, or 4 where the last one is a mask. uint8 is divided by 255, uint16 by 65535; floating point is taken as
    it is, in [0, 1] up to the noise that a degraded image may carry. (3, H, 3) counts as (3, H, W).

    Raises ShapeError or DtypeError when `image` is nothing of the kind, RangeError when floating point values lie
    outside [-1, 2], as they do in images scaled to 255.
    """
    if not isinstance(image, np.ndarray | Tensor):
        raise DtypeError(f"an image of type {type(image).__name__}", "a path, a numpy array or a torch tensor")
    values = tensor_of(image) if isinstance(image, np.ndarray) else image
    if values.ndim != 3 or channels not in (values.shape[0], values.shape[2]) or values.numel() == 0:
        expected = f"({channels}, H, W) or (H, W, {channels}) with H, W >= 1"
        raise ShapeError(f"an image of shape {tuple(values.shape)}", expected)
    if values.shape[0] != channels:
        values = values.permute(2, 0, 1)
    if values.dtype in INTEGER_MAXIMUM:
        return values.to(torch.float32) / INTEGER_MAXIMUM[values.dtype]
    if not values.is_floating_point():
        raise DtypeError(f"an image of {values.dtype}", "floating point in [0, 1], uint8 or uint16")
    pixels = values.to(torch.float32)
    if bool((pixels < -1).any()) or bool((pixels > 2).any()):
        raise RangeError(
            f"an image with values in [{pixels.min():g}, {pixels.max():g}]", "[0, 1]", "Divide 8-bit values by 255."
        )
    return pixels


def tensor_of(array: np.ndarray) -> Tensor:
    """A copy of `array`, whatever its byte order. Raises DtypeError for elements that torch has no type for."""
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    except TypeError as error:
        raise DtypeError(f"an array of {array.dtype}", "floating point in [0, 1], uint8 or uint16") from error


def missing_part(alpha: Tensor) -> Tensor:
    """The mask of a picture that is to be filled, 1 where alpha (1, H, W) is below 1/2 and 0 elsewhere, as `alpha`."""
    return (alpha < 0.5).to(alpha.dtype)


def planes_of(picture: Picture) -> Tensor:
    """(3 or 4, H, W): the pixels of a picture, and its alpha if it has one."""
    return picture.pixels if picture.alpha is None else torch.cat([picture.pixels, picture.alpha])
