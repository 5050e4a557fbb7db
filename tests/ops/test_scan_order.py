from __future__ import annotations

import pytest
import torch

from serpent_ir.ops.reference import pixels_in_order
from serpent_ir.ops.scan_order import inverse_order, scan_order


def test_convention_orders_of_a_small_map() -> None:
    # pixel numbers of a 2 x 3 map:  0 1 2
    #                                3 4 5
    assert scan_order(0, 2, 3).tolist() == [0, 1, 2, 3, 4, 5]
    assert scan_order(1, 2, 3).tolist() == [0, 3, 1, 4, 2, 5]
    assert scan_order(2, 2, 3).tolist() == [5, 4, 3, 2, 1, 0]
    assert scan_order(3, 2, 3).tolist() == [5, 2, 4, 1, 3, 0]


@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (7, 1), (13, 5)])
def test_agrees_with_the_oracle_and_is_undone_by_its_inverse(order: int, height: int, width: int) -> None:
    sequence = scan_order(order, height, width)
    assert sequence.tolist() == [row * width + column for row, column in pixels_in_order(order, height, width)]
    pixels = torch.arange(height * width)
    assert torch.equal(pixels[sequence][inverse_order(sequence)], pixels)
