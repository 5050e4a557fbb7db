from __future__ import annotations

import pytest
import torch

from serpent_ir.errors import RangeError
from serpent_ir.tasks import quantize


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_every_level_stays_what_it_is(bits: int) -> None:
    levels = torch.arange(2**bits, dtype=torch.float32) / (2**bits - 1)
    assert torch.equal(quantize(levels, bits), levels)


def test_clips_and_rounds_to_the_nearest_level() -> None:
    image = torch.tensor([-0.2, 1.3, 100.4 / 255, 100.6 / 255])
    assert torch.equal(quantize(image), torch.tensor([0.0, 1.0, 100 / 255, 101 / 255]))


@pytest.mark.parametrize("bits", [0, 17])
def test_impossible_depth_is_refused(bits: int) -> None:
    with pytest.raises(RangeError, match="1 to 16"):
        quantize(torch.zeros(1), bits)
