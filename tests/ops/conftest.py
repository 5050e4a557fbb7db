"""Random problems for the scan, and the comparison of a backend with the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tolerances import RELATIVE, relative_error
from torch import Tensor

from serpent_ir.ops import native

Function = Callable[..., Tensor]

# (backend, instruction set): everything that can run on this machine.
VARIANTS = [("portable", "")] + [("native", name) for name in native.instruction_sets()]


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join(filter(None, variant)))
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each backend in turn, the native one with each instruction set that this processor has."""
    name, instruction_set = request.param
    if instruction_set:
        monkeypatch.setenv(native.INSTRUCTION_SET_VARIABLE, instruction_set)
    return name


@pytest.fixture
def map_problem() -> Callable[..., list[Tensor]]:
    """Arguments of selective_scan_2d with the model's magnitudes; dt_low, B and C are slices of one projection."""

    def make(
        batch: int, height: int, width: int, channels: int, directions: int, states: int, rank: int = 2,
        dtype: torch.dtype = torch.float32,
    ) -> list[Tensor]:  # fmt: skip
        rows = torch.randn(batch, height, width, directions, rank + 2 * states, dtype=dtype)
        return [
            torch.randn(batch, height, width, channels, dtype=dtype),
            *rows.split([rank, states, states], dim=-1),
            torch.randn(directions, channels, rank, dtype=dtype) * rank**-0.5,
            torch.randn(directions, channels, dtype=dtype) - 3,
            -torch.rand(directions, channels, states, dtype=dtype) * states - 0.05,
            torch.randn(directions, channels, dtype=dtype),
        ]

    return make


@pytest.fixture
def agree() -> Callable[..., None]:
    """Asserts that output and every gradient of `function` equal the oracle's within the table of tolerances."""

    def check(function: Function, oracle: Function, arguments: Sequence[Tensor | None], **keywords: Any) -> None:
        given = [None if a is None else a.detach().clone().requires_grad_() for a in arguments]
        exact = [None if a is None else a.detach().double().requires_grad_() for a in arguments]
        leaves, exact_leaves = ([a for a in side if a is not None] for side in (given, exact))
        output, exact_output = function(*given, **keywords), oracle(*exact)
        assert output.dtype == leaves[0].dtype
        direction = torch.randn_like(exact_output)
        gradients = torch.autograd.grad(output, leaves, direction.to(output.dtype))
        exact_gradients = torch.autograd.grad(exact_output, exact_leaves, direction)
        tolerance = RELATIVE[leaves[0].dtype]
        pairs = zip((output, *gradients), (exact_output, *exact_gradients), strict=True)
        errors = [relative_error(value, expected) for value, expected in pairs]
        assert max(errors) < tolerance, [f"{error:.1e}" for error in errors]

    return check
