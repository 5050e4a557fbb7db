from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from serpent_ir.efficiency.cell import Cell
from serpent_ir.efficiency.record import Result
from serpent_ir.efficiency.scaling import exponents, fit_exponent
from serpent_ir.errors import RangeError


@given(st.floats(-2, 3), st.floats(1e-6, 1e6))
def test_a_power_law_is_found_exactly(exponent: float, constant: float) -> None:
    pixels = [64**2, 100 * 80, 512**2, 2048**2]
    fit = fit_exponent(pixels, [constant * count**exponent for count in pixels])
    assert fit.exponent == pytest.approx(exponent, abs=1e-9) and fit.points == 4
    assert fit.standard_error == pytest.approx(0, abs=1e-6)


def test_against_another_library() -> None:
    pixels = [4096, 16384, 65536, 65536, 262144]
    values = list(np.random.default_rng(0).uniform(0.5, 2, 5) * np.array(pixels) ** 1.1)
    fit = fit_exponent(pixels, values)
    expected = scipy.stats.linregress(np.log(pixels), np.log(values))
    assert (fit.exponent, fit.standard_error) == pytest.approx((expected.slope, expected.stderr))


@pytest.mark.parametrize(
    ("pixels", "values"), [([1, 2], [1, 2]), ([1, 2, 2], [1, 2, 3]), ([1, 2, 3], [1, 0, 2]), ([1, 2, 3], [1, -1, 2])]
)
def test_what_has_no_exponent(pixels: list[int], values: list[float]) -> None:
    with pytest.raises(RangeError):
        fit_exponent(pixels, values)


def measured(size: int, seconds: float, working: int | None, **fields: str) -> Result:
    times = {"median": seconds, "lower_quartile": seconds, "upper_quartile": seconds, "runs": 3}
    memory = None if working is None else {"peak": 10 * abs(working), "baseline": 1, "working": working}
    cell = Cell(**{"model": "serpent-b", "height": size, "width": size, **fields})
    return Result(cell, 1, 1.0, "measured", seconds=times, memory=memory)


def test_one_for_each_series_with_three_sizes() -> None:
    results = [
        *(measured(size, 1e-6 * size**2, size**4) for size in (16, 32, 64)),
        *(measured(size, 1e-6 * size**3, None, mode="training") for size in (16, 32, 64)),
        *(measured(size, 1.0, 1, precision="bfloat16") for size in (16, 32)),
        Result(Cell("serpent-b", 64, 64, precision="bfloat16"), 1, 1.0, "out of memory"),
        *(measured(size, 1.0, max(0, size - 16), model="unet-32") for size in (16, 32, 64)),
    ]
    inference, training, unet = exponents(results)
    assert inference.time and inference.time.exponent == pytest.approx(1)
    assert inference.memory and inference.memory.exponent == pytest.approx(2)
    assert training.series.mode == "training" and training.memory is None
    assert training.time and training.time.exponent == pytest.approx(1.5)
    assert unet.series.model == "unet-32" and unet.memory is None, "two positive values are too few"
