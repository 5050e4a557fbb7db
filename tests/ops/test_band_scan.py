"""A map scanned band by band, against the oracle that sees it as a whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tolerances import RELATIVE, relative_error
from torch import Tensor

from serpent_ir.errors import DtypeError, RangeError
from serpent_ir.ops import native, reference, selective_scan_2d
from serpent_ir.ops.band_scan import BandScan

Problem = Callable[..., list[Tensor]]
pytestmark = pytest.mark.skipif(native.unavailable is not None, reason="the compiled part is not installed")


def in_bands(arguments: list[Tensor], rows: int) -> Tensor:
    """`selective_scan_2d` of one image, in bands of so many rows."""
    x, dt_low, B, C, dt_weight, dt_bias, A, D = arguments
    scan = BandScan(x.shape[2], dt_weight, dt_bias, A, D)
    bands = [slice(first, first + rows) for first in range(0, x.shape[1], rows)]
    for band in bands:
        scan.survey(x[0, band], dt_low[0, band], B[0, band], C[0, band])
    parts = [scan.scan(x[0, band], dt_low[0, band], B[0, band], C[0, band]) for band in bands]
    return torch.cat(parts).unsqueeze(0)


@pytest.mark.parametrize("instruction_set", native.instruction_sets())
@pytest.mark.parametrize("directions", [1, 2, 4])
@pytest.mark.parametrize(
    ("height", "width", "rows"), [(1, 1, 1), (7, 1, 2), (1, 9, 1), (13, 5, 4), (9, 6, 20), (30, 3, 1)]
)
def test_agrees_with_the_oracle(
    monkeypatch: pytest.MonkeyPatch,
    nan_filled_memory: None,
    map_problem: Problem,
    instruction_set: str,
    directions: int,
    height: int,
    width: int,
    rows: int,
) -> None:
    monkeypatch.setenv(native.INSTRUCTION_SET_VARIABLE, instruction_set)
    for dtype, states in ((torch.float32, 3), (torch.float64, 1)):
        arguments = map_problem(1, height, width, 21, directions, states, dtype=dtype)
        oracle = reference.selective_scan_2d(*(a.double() for a in arguments))
        assert relative_error(in_bands(arguments, rows), oracle) < RELATIVE[dtype]


@pytest.mark.parametrize("threads", [1, 3])
def test_states_that_live_long_cross_all_bands_and_columns(threads: int, map_problem: Problem) -> None:
    """Hardly any decay: what the first pixel brings is felt in the last. Columns longer than a chunk, an odd rest."""
    arguments = map_problem(1, 150, 40, 70, 4, 5)
    arguments[5] -= 6  # step sizes near 1e-4
    whole = selective_scan_2d(*arguments, backend="native")
    arguments[0][0, 0, 0] += 100
    changed = selective_scan_2d(*arguments, backend="native")
    assert (changed - whole)[0, -1, -1].abs().max() > 1e-4
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert relative_error(in_bands(arguments, 71), changed) < 1e-5
    finally:
        torch.set_num_threads(before)


def test_fast_decay_over_a_long_column_is_harmless(map_problem: Problem) -> None:
    """The product of the decays of a column underflows to zero, and nothing is divided by it."""
    arguments = map_problem(1, 90, 4, 16, 4, 2)
    arguments[5] += 30
    whole = selective_scan_2d(*arguments, backend="native")
    assert relative_error(in_bands(arguments, 30), whole) < 1e-5


def test_what_is_kept_may_lie_elsewhere(map_problem: Problem) -> None:
    class Shelf:
        def __init__(self) -> None:
            self.numbers: list[bytes] = []
            self.shape = torch.Size()

        def __len__(self) -> int:
            return len(self.numbers)

        def __getitem__(self, index: int, /) -> Tensor:
            return torch.frombuffer(bytearray(self.numbers[index]), dtype=torch.float32).view(self.shape)

        def __setitem__(self, index: int, value: Tensor, /) -> None:
            assert value.shape == self.shape
            self.numbers[index] = value.numpy().tobytes()

        def append(self, value: Tensor, /) -> None:
            self.shape = value.shape
            self.numbers.append(b"")
            self[len(self) - 1] = value

    arguments = map_problem(1, 12, 5, 16, 4, 2)
    x, dt_low, B, C, dt_weight, dt_bias, A, D = arguments
    shelf = Shelf()
    scan = BandScan(5, dt_weight, dt_bias, A, D, shelf)
    bands = [slice(0, 5), slice(5, 10), slice(10, 12)]
    for band in bands:
        scan.survey(x[0, band], dt_low[0, band], B[0, band], C[0, band])
    assert len(shelf) == 3
    y = torch.cat([scan.scan(x[0, band], dt_low[0, band], B[0, band], C[0, band]) for band in bands])
    assert torch.equal(y[None], in_bands(arguments, 5))


def test_a_growing_system_is_refused(map_problem: Problem) -> None:
    arguments = map_problem(1, 4, 4, 8, 4, 2)
    arguments[6][0, 0, 0] = 0.5
    with pytest.raises(RangeError, match="negative"):
        in_bands(arguments, 2)


def test_other_types_are_refused(map_problem: Problem) -> None:
    arguments = map_problem(1, 4, 4, 8, 4, 2)
    with pytest.raises(DtypeError, match="float32 or float64"):
        in_bands([tensor.bfloat16() for tensor in arguments[:4]] + arguments[4:], 2)
