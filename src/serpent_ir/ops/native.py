"""The CPU backend: compiled kernels (csrc/) that walk the map in place, forwards and backwards.

Same functions as `portable`; the arguments are those of the operator `serpent::scan` (see `scan_operator.py`).
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from serpent_ir.errors import BackendError

INSTRUCTION_SET_VARIABLE = "SERPENT_INSTRUCTION_SET"

unavailable: str | None = None
"""Why the backend cannot run at all, or None."""
try:
    from serpent_ir.ops import _native
except ImportError as error:
    unavailable = f"the compiled part is not installed ({error}); installing again with a C++17 compiler builds it"


def instruction_sets() -> list[str]:
    """Instruction sets that this build has and this processor can run, widest first."""
    return [] if unavailable else list(_native.instruction_sets())


def runs_on_several_threads() -> bool:
    """Whether the compiled part was built with OpenMP."""
    return unavailable is None and bool(_native.openmp)


def instruction_set() -> str:
    """The one in use: `SERPENT_INSTRUCTION_SET`, else the widest. Raises `BackendError` for one that cannot run."""
    sets = instruction_sets()
    asked = os.environ.get(INSTRUCTION_SET_VARIABLE)
    if asked and asked not in sets:
        raise BackendError(f"{INSTRUCTION_SET_VARIABLE}={asked}", f"one of {', '.join(sets)}")
    return asked or sets[0]


def forward(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    a: Tensor,
    dt_weight: Tensor | None,
    dt_bias: Tensor | None,
    skip: Tensor | None,
    weight: Tensor | None,
    height: int,
    width: int,
    softplus: bool,
    interval: int,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, L, D), the last states (B, K, D, N), the kept states (B, K, chunks - 1, N, D), empty unless asked for."""
    batch, length, channels = x.shape
    directions, _, states = a.shape
    groups = b.shape[2] // directions
    slots = _vectors_of_16(channels // groups)
    problem = _problem(x, dt, b, c, a, dt_weight, dt_bias, skip, weight, height, width, softplus, interval, slots)
    y = x.new_empty(x.shape)
    last = x.new_empty(batch, directions, states, channels)
    chunks = -(-length // interval) if keep_states else 1
    kept = x.new_empty(batch, directions, chunks - 1, states, channels)
    problem.forward(y, kept if keep_states else None, last, _scratch(problem, backward=False))
    return y, last.transpose(2, 3).contiguous(), kept


def backward(
    grad_y: Tensor,
    kept: Tensor,
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    a: Tensor,
    dt_weight: Tensor | None,
    dt_bias: Tensor | None,
    skip: Tensor | None,
    weight: Tensor | None,
    height: int,
    width: int,
    softplus: bool,
    interval: int,
) -> list[Tensor | None]:
    """Gradients of x, dt, b, c, a, dt_weight, dt_bias, skip and weight, None where the input is None."""
    batch, length, channels = x.shape
    directions, _, states = a.shape
    streams = b.shape[2]
    rank = 0 if dt_weight is None else dt_weight.shape[2]
    # The gradients of dt_low, B and C are sums over channels: each slot writes its own partial sum. Fewer slots need
    # less memory, more keep more threads busy. Their number depends on sizes alone, so the bits of the result do too.
    slots = min(_vectors_of_16(channels * directions // streams), max(1, -(-8 // batch)))
    problem = _problem(x, dt, b, c, a, dt_weight, dt_bias, skip, weight, height, width, softplus, interval, slots)
    grad_x = x.new_empty(x.shape)
    grad_rows = x.new_empty(slots, batch, length, streams, rank + 2 * states)
    grad_delta = x.new_empty(x.shape) if dt_weight is None else None
    grad_a = x.new_empty(batch, directions, states, channels)
    grad_dt_weight = x.new_empty(batch, directions, rank, channels)
    grad_dt_bias = x.new_empty(batch, directions, channels)
    grad_skip = x.new_empty(batch, directions, channels)
    grad_weight = None if weight is None else torch.empty_like(grad_a)
    problem.backward(
        grad_y.contiguous(),
        kept.contiguous(),
        grad_x,
        grad_rows,
        grad_delta,
        grad_a,
        grad_dt_weight,
        grad_dt_bias,
        grad_skip,
        grad_weight,
        _scratch(problem, backward=True),
    )
    rows = grad_rows.sum(0) if slots > 1 else grad_rows[0]
    grad_dt_low, grad_b, grad_c = rows.split([rank, states, states], dim=-1)
    return [
        grad_x,
        grad_dt_low.contiguous() if grad_delta is None else grad_delta.unsqueeze(2),
        grad_b.contiguous(),
        grad_c.contiguous(),
        grad_a.sum(0).transpose(1, 2).contiguous(),
        None if dt_weight is None else grad_dt_weight.sum(0).transpose(1, 2).contiguous(),
        None if dt_bias is None else grad_dt_bias.sum(0),
        None if skip is None else grad_skip.sum(0),
        None if grad_weight is None else grad_weight.sum(0).transpose(1, 2).contiguous(),
    ]


def _vectors_of_16(channels: int) -> int:
    return -(-channels // 16)


def _problem(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    a: Tensor,
    dt_weight: Tensor | None,
    dt_bias: Tensor | None,
    skip: Tensor | None,
    weight: Tensor | None,
    height: int,
    width: int,
    softplus: bool,
    interval: int,
    slots: int,
) -> Any:
    def rows(tensor: Tensor) -> Tensor:  # (B, L, S, M) -> (B * L, S, M), a view wherever that is possible
        flat = tensor.detach().flatten(0, 1)
        return flat if flat.stride(-1) == 1 else flat.contiguous()

    def dense(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().contiguous()

    def channels_last(tensor: Tensor | None) -> Tensor | None:  # (K, D, M) -> (K, M, D)
        return None if tensor is None else tensor.detach().transpose(1, 2).contiguous()

    problem = _native.ProblemFloat64 if x.dtype == torch.float64 else _native.ProblemFloat32
    return problem(
        dense(x),
        rows(dt),
        rows(b),
        rows(c),
        channels_last(a),
        channels_last(dt_weight),
        dense(dt_bias),
        dense(skip),
        channels_last(weight),
        height,
        width,
        b.shape[2] // a.shape[0],
        softplus,
        interval,
        slots,
        torch.get_num_threads(),
        instruction_set(),
    )


def _scratch(problem: Any, backward: bool) -> Tensor:
    return torch.empty(problem.scratch_bytes(backward), dtype=torch.uint8)
