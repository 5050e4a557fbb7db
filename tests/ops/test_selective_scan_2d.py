"""The map in four directions: every backend against the oracle, output and all gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tolerances import RELATIVE, relative_error
from torch import Tensor

from serpent_ir.ops import native, reference, selective_scan_2d

Problem = Callable[..., list[Tensor]]


@pytest.mark.parametrize("directions", [1, 2, 4])
@pytest.mark.parametrize("states", [1, 6, 16, 43])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (13, 5)])
def test_agrees_with_the_oracle(
    backend: str, nan_filled_memory: None, agree: Callable[..., None], map_problem: Problem,
    height: int, width: int, states: int, directions: int,
) -> None:  # fmt: skip
    arguments = map_problem(2, height, width, 21, directions, states, rank=3)
    agree(selective_scan_2d, reference.selective_scan_2d, arguments, backend=backend)


def test_agrees_with_the_channels_of_the_first_scale(
    backend: str, nan_filled_memory: None, agree: Callable[..., None], map_problem: Problem
) -> None:
    agree(selective_scan_2d, reference.selective_scan_2d, map_problem(1, 16, 20, 64, 4, 6), backend=backend)


def test_double_precision_and_gradcheck(
    backend: str, nan_filled_memory: None, agree: Callable[..., None], map_problem: Problem
) -> None:
    arguments = map_problem(2, 9, 9, 5, 4, 3, dtype=torch.float64)
    agree(selective_scan_2d, reference.selective_scan_2d, arguments, backend=backend)
    leaves = [a.clone().requires_grad_() for a in map_problem(1, 2, 3, 2, 4, 2, dtype=torch.float64)]
    assert torch.autograd.gradcheck(lambda *a: selective_scan_2d(*a, backend=backend), leaves)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs(backend: str, map_problem: Problem, dtype: torch.dtype) -> None:
    arguments = [a.to(dtype) for a in map_problem(1, 11, 6, 16, 4, 6)]
    y = selective_scan_2d(*arguments, backend=backend)
    assert y.dtype == dtype
    assert relative_error(y, reference.selective_scan_2d(*arguments)) < RELATIVE[dtype]


def test_first_direction_sees_only_what_lies_before(backend: str, map_problem: Problem) -> None:
    arguments = map_problem(1, 4, 5, 8, 1, 3)
    before = selective_scan_2d(*arguments, backend=backend)
    arguments[0][0, 2, 1] += 1
    changed = (selective_scan_2d(*arguments, backend=backend) != before).any(-1)[0].flatten()
    assert not changed[: 2 * 5 + 1].any()
    assert changed[2 * 5 + 1 :].all()


def test_every_pixel_sees_every_pixel(backend: str, map_problem: Problem) -> None:
    arguments = map_problem(1, 4, 5, 8, 4, 3)
    before = selective_scan_2d(*arguments, backend=backend)
    arguments[0][0, 2, 1] += 1
    assert (selective_scan_2d(*arguments, backend=backend) != before).any(-1).all()


@pytest.mark.skipif(native.unavailable is not None, reason="the compiled part is not installed")
def test_same_bits_for_any_number_of_threads(map_problem: Problem) -> None:
    arguments = [a.clone().requires_grad_() for a in map_problem(2, 12, 17, 80, 4, 6)]
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5, 1):
            torch.set_num_threads(count)
            y = selective_scan_2d(*arguments, backend="native")
            results.append((y, *torch.autograd.grad(y.square().sum(), arguments)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.skipif(native.unavailable is not None, reason="the compiled part is not installed")
def test_native_keeps_few_states_and_only_for_a_gradient(map_problem: Problem) -> None:
    from serpent_ir.ops.problem import STATE_INTERVAL
    from serpent_ir.ops.scan_operator import scan

    x, dt_low, B, C, dt_weight, dt_bias, A, D = map_problem(1, 20, 20, 16, 4, 6)
    flat = [tensor.flatten(1, 2) for tensor in (x, dt_low, B, C)]
    for keep, chunks in ((True, -(-400 // STATE_INTERVAL) - 1), (False, 0)):
        kept = scan(*flat, A, dt_weight, dt_bias, D, None, 20, 20, True, "native", keep)[2]
        assert kept.shape == (1, 4, chunks, 6, 16)
