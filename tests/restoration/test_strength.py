from __future__ import annotations

import math

import pytest
import torch

from serpent_ir.errors import RangeError
from serpent_ir.images.linear_light import from_linear, to_linear
from serpent_ir.restoration.strength import blended

BEFORE, AFTER = torch.rand(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 1.5 - 0.25


def curve(value: float) -> float:
    """IEC 61966-2-1, in double precision."""
    amount = abs(value)
    light = amount / 12.92 if amount <= 0.04045 else ((amount + 0.055) / 1.055) ** 2.4
    return math.copysign(light, value)


def test_the_curve_is_that_of_the_standard() -> None:
    coded = torch.linspace(-1.5, 1.5, 6001, dtype=torch.float64)
    light = to_linear(coded)
    assert light.tolist() == pytest.approx([curve(value) for value in coded.tolist()], rel=1e-12, abs=1e-15)
    assert to_linear(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([0, 0.2140411, 1], rel=1e-6)
    assert torch.equal(to_linear(-coded), -light) and bool((light.diff() > 0).all())
    torch.testing.assert_close(from_linear(light), coded, rtol=0, atol=1e-7)
    assert to_linear(coded.float()).dtype == torch.float32


def test_the_ends_are_exact() -> None:
    assert torch.equal(blended(BEFORE, AFTER, 1), AFTER)
    assert torch.equal(blended(BEFORE, AFTER, 0), BEFORE)


def test_light_is_mixed() -> None:
    expected = 0.3 * to_linear(AFTER.double()) + 0.7 * to_linear(BEFORE.double())
    torch.testing.assert_close(to_linear(blended(BEFORE, AFTER, 0.3).double()), expected, rtol=0, atol=1e-6)
    black, white = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    assert blended(black, white, 0.5).flatten().tolist() == pytest.approx(3 * [0.7353570], abs=1e-6)
    torch.testing.assert_close(blended(AFTER, AFTER, 0.4), AFTER, rtol=0, atol=1e-6)


@pytest.mark.parametrize("strength", [-0.01, 1.01, math.nan, math.inf])
def test_other_strengths(strength: float) -> None:
    with pytest.raises(RangeError, match=r"expected a number from 0 \(the input\) to 1"):
        blended(BEFORE, AFTER, strength)
