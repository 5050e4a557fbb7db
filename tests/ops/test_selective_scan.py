"""One sequence: every backend against the oracle, output and all gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tolerances import RELATIVE, relative_error
from torch import Tensor

from serpent_ir.ops import portable, reference, selective_scan


def sequence_problem(batch: int, channels: int, length: int, states: int, dtype: torch.dtype = torch.float32) -> Any:
    u, delta, z = torch.randn(3, batch, channels, length, dtype=dtype)
    A = -torch.rand(channels, states, dtype=dtype) * states - 0.05
    B, C = torch.randn(2, batch, states, length, dtype=dtype)
    D, bias = torch.randn(2, channels, dtype=dtype)
    return [u, delta, A, B, C, D, z, bias - 3]


def oracle(*arguments: Tensor | None) -> Tensor:
    return reference.selective_scan(*arguments, delta_softplus=True)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("states", [1, 6, 16, 43])
@pytest.mark.parametrize("length", [1, 63, 500])
def test_agrees_with_the_oracle(
    backend: str, nan_filled_memory: None, agree: Callable[..., None], length: int, states: int
) -> None:
    arguments = sequence_problem(2, 19, length, states)
    agree(selective_scan, oracle, arguments, delta_softplus=True, backend=backend)


@pytest.mark.parametrize("states", [1, 6, 16, 43])
def test_agrees_on_a_long_sequence(
    backend: str, nan_filled_memory: None, agree: Callable[..., None], states: int
) -> None:
    agree(selective_scan, oracle, sequence_problem(1, 9, 4096, states), delta_softplus=True, backend=backend)


@pytest.mark.parametrize("form_of_b", ["constant", "shared", "grouped"])
@pytest.mark.parametrize("form_of_c", ["constant", "shared", "grouped"])
def test_all_forms_of_b_and_c(
    backend: str, nan_filled_memory: None, agree: Callable[..., None], form_of_b: str, form_of_c: str
) -> None:
    batch, channels, length, states, groups = 2, 12, 70, 5, 3
    forms = {
        "constant": torch.randn(channels, states),
        "shared": torch.randn(batch, states, length),
        "grouped": torch.randn(batch, groups, states, length),
    }
    arguments = sequence_problem(batch, channels, length, states)
    arguments[3], arguments[4] = forms[form_of_b], forms[form_of_c].flip(0)
    agree(selective_scan, oracle, arguments, delta_softplus=True, backend=backend)
    y, last = selective_scan(*arguments, delta_softplus=True, return_last_state=True, backend=backend)
    exact_y, exact_last = reference.selective_scan(*arguments, delta_softplus=True)
    assert relative_error(y, exact_y) < RELATIVE[torch.float32]
    assert relative_error(last, exact_last) < RELATIVE[torch.float32]


def test_without_the_optional_arguments(backend: str, nan_filled_memory: None, agree: Callable[..., None]) -> None:
    u, delta, A, B, C, *_ = sequence_problem(2, 5, 130, 4)
    arguments = [u, torch.nn.functional.softplus(delta - 2), A, B, C]
    agree(selective_scan, lambda *a: reference.selective_scan(*a)[0], arguments, backend=backend)


def test_double_precision_and_gradcheck(backend: str, nan_filled_memory: None, agree: Callable[..., None]) -> None:
    arguments = sequence_problem(2, 3, 67, 2, torch.float64)
    agree(selective_scan, oracle, arguments, delta_softplus=True, backend=backend)
    small = [a[..., :5].clone() if a.ndim == 3 else a for a in arguments]
    leaves = [a.detach().requires_grad_() for a in small]
    assert torch.autograd.gradcheck(lambda *a: selective_scan(*a, delta_softplus=True, backend=backend), leaves)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_have_float32_states(backend: str, dtype: torch.dtype) -> None:
    arguments = [a.to(dtype) for a in sequence_problem(2, 16, 300, 6)]
    y, last = selective_scan(*arguments, delta_softplus=True, return_last_state=True, backend=backend)
    exact_y, exact_last = reference.selective_scan(*arguments, delta_softplus=True)
    assert (y.dtype, last.dtype) == (dtype, torch.float32)
    assert relative_error(y, exact_y) < RELATIVE[dtype]
    assert relative_error(last, exact_last) < RELATIVE[torch.float32]


def test_last_state_carries_no_gradient(backend: str) -> None:
    arguments = [a.requires_grad_() for a in sequence_problem(1, 3, 10, 2)]
    y, last = selective_scan(*arguments, return_last_state=True, backend=backend)
    assert y.requires_grad and not last.requires_grad


def test_state_after_a_million_steps_of_a_constant_input(backend: str) -> None:
    # dt = 0.01, A = -1, B u = 1: a geometric series with the limit dt / (1 - exp(-dt)).
    length = 1_000_000
    ones = torch.ones(1, 1, length)
    y = selective_scan(ones, 0.01 * ones, -torch.ones(1, 1), ones, ones, backend=backend)
    limit = 0.01 / -torch.expm1(torch.tensor(-0.01)).item()
    assert relative_error(y[0, 0, -1], torch.tensor(limit)) < 1e-5
    assert relative_error(y[0, 0, 99], torch.tensor(limit * (1 - torch.exp(torch.tensor(-1.0)).item()))) < 1e-5


@pytest.mark.parametrize("decay", [1e-6, 50.0, 1e4])
def test_agrees_for_any_decay(backend: str, agree: Callable[..., None], decay: float) -> None:
    arguments = sequence_problem(1, 9, 200, 3)
    arguments[2] = -torch.full((9, 3), decay)
    agree(selective_scan, oracle, arguments, delta_softplus=True, backend=backend)


def test_a_decay_without_bounds_forgets_everything(backend: str) -> None:
    u, delta, A, B, C, *_ = (a.requires_grad_() for a in sequence_problem(1, 9, 200, 3))
    y = selective_scan(u, delta, A * 1e30, B, C, delta_softplus=True, backend=backend)
    at_once = (B * C).sum(1, keepdim=True) * torch.nn.functional.softplus(delta) * u
    assert relative_error(y, at_once) < RELATIVE[torch.float32]
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(y.sum(), [u, delta, A, B, C]))


def test_several_segments_with_and_without_a_gradient(
    agree: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, "_SEGMENT_ELEMENTS", 1)  # as many segments as chunks
    arguments = sequence_problem(2, 5, 300, 3)
    agree(selective_scan, oracle, arguments, delta_softplus=True, backend="portable")
    y = selective_scan(*arguments, delta_softplus=True, backend="portable")
    assert relative_error(y, oracle(*arguments)) < RELATIVE[torch.float32]


def test_negative_steps_grow_like_the_oracle(backend: str, agree: Callable[..., None]) -> None:
    u, delta, A, B, C, *_ = sequence_problem(1, 9, 20, 3)
    agree(selective_scan, lambda *a: reference.selective_scan(*a)[0], [u, -delta.abs(), A, B, C], backend=backend)
    ones = torch.ones(1, 1, 4)
    y = selective_scan(ones, -200 * ones, -torch.ones(1, 1), ones, ones, backend=backend)
    assert not y[0, 0, 1:].isfinite().any()  # exp(200) is no float32


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FC00001, 0x7FFFFFFF, -1, -0x400000 + 0x1FF])
@pytest.mark.parametrize("place", [0, 1])
def test_not_a_number_goes_through(backend: str, bits: int, place: int) -> None:
    arguments = sequence_problem(1, 19, 30, 3)
    arguments[place][0, 2, 10] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    y = selective_scan(*arguments, delta_softplus=True, backend=backend)
    assert y[0, 2, 10:].isnan().all()
    others = [channel for channel in range(19) if channel != 2]
    assert y[0, 2, :10].isfinite().all() and y[0, others].isfinite().all()


def test_other_memory_layouts_give_the_same(backend: str) -> None:
    arguments = sequence_problem(2, 6, 40, 3)
    strided = [a.transpose(-1, -2).contiguous().transpose(-1, -2) if a.ndim > 1 else a for a in arguments]
    one, other = (selective_scan(*a, delta_softplus=True, backend=backend) for a in (arguments, strided))
    assert torch.equal(one, other)
