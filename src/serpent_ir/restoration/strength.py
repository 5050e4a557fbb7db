"""A result by degrees: from the image that came in to the restored one."""

from __future__ import annotations

from torch import Tensor

from serpent_ir.errors import RangeError


def check_strength(strength: float) -> None:
    """Raise RangeError unless 0 <= strength <= 1."""
    if not 0 <= strength <= 1:
        raise RangeError(f"strength {strength}", "a number from 0 (the input) to 1 (the restored image)")


def blended(before: Tensor, after: Tensor, strength: float) -> Tensor:
    """`before` at strength 0 and `after` at 1, each bit for bit; in between both are mixed as light is.

    before, after: coded sRGB values of one shape, floating point. The mean of coded values would be too dark along
    edges: what is mixed is linear light, (1 - strength) before + strength after. Raises RangeError for a strength
    outside [0, 1].
    """
    check_strength(strength)
    if strength in (0, 1):
        return after if strength == 1 else before
    from serpent_ir.images.linear_light import from_linear, to_linear

    return from_linear(to_linear(before).lerp(to_linear(after), strength))
