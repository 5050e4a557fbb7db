"""What a file does to an image: clipping and rounding to whole levels."""

from __future__ import annotations

from torch import Tensor

from serpent_ir.errors import RangeError


def quantize(image: Tensor, bits: int = 8) -> Tensor:
    """Clip to [0, 1] and round to the nearest of 2**bits evenly spaced levels (ties to even), as writing a file does.

    `image`: float tensor of any shape; the result has its shape and type. Raises RangeError unless 1 <= bits <= 16.
    """
    if not 1 <= bits <= 16:
        raise RangeError(f"quantize got {bits} bits", "1 to 16")
    levels = 2**bits - 1
    return image.clamp(0, 1).mul(levels).round().div(levels)
