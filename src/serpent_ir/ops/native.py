"""The CPU backend: compiled kernels (csrc/) that walk the map in place, forwards and backwards.

Same functions as `portable`.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from serpent_ir.errors import BackendError
from serpent_ir.ops.problem import STATE_INTERVAL, ScanProblem

INSTRUCTION_SET_VARIABLE = "SERPENT_INSTRUCTION_SET"

unavailable: str | None = None
"""Why the backend cannot run at all, or None."""
try:
    import serpent_ir.ops._native as _native
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


def forward(p: ScanProblem, keep_states: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, L, D), the last states (B, K, D, N), the kept states (B, K, chunks - 1, N, D), none unless asked for."""
    compiled = _compiled(p, slots=_vectors_of_16(p.channels // p.groups))
    y = p.x.new_empty(p.x.shape)
    last = p.x.new_empty(p.batch, p.directions, p.states, p.channels)
    kept = p.x.new_empty(p.batch, p.directions, p.chunks - 1 if keep_states else 0, p.states, p.channels)
    compiled.forward(y, kept if keep_states else None, last, _scratch(compiled, backward=False))
    return y, last.transpose(2, 3).contiguous(), kept


def backward(p: ScanProblem, grad_y: Tensor, kept: Tensor) -> list[Tensor | None]:
    """Gradients of the problem's tensors, None where one is None."""
    # The gradients of dt_low, B and C are sums over channels: each slot writes its own partial sum. Fewer slots need
    # less memory, more keep more threads busy. Their number depends on sizes alone, so the bits of the result do too.
    slots = min(_vectors_of_16(p.channels // p.groups), max(1, -(-8 // p.batch)))
    compiled = _compiled(p, slots)
    grad_x = p.x.new_empty(p.x.shape)
    grad_rows = p.x.new_empty(slots, p.batch, p.length, p.streams, p.rank + 2 * p.states)
    grad_delta = p.x.new_empty(p.x.shape) if p.dt_weight is None else None
    grad_a = p.x.new_empty(p.batch, p.directions, p.states, p.channels)
    grad_dt_weight = p.x.new_empty(p.batch, p.directions, p.rank, p.channels)
    grad_dt_bias = p.x.new_empty(p.batch, p.directions, p.channels)
    grad_skip = p.x.new_empty(p.batch, p.directions, p.channels)
    grad_weight = None if p.weight is None else torch.empty_like(grad_a)
    compiled.backward(
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
        _scratch(compiled, backward=True),
    )
    rows = grad_rows[0] if slots == 1 else grad_rows.sum(0)
    grad_dt_low, grad_b, grad_c = rows.split([p.rank, p.states, p.states], dim=-1)
    return [
        grad_x,
        grad_dt_low.contiguous() if grad_delta is None else grad_delta.unsqueeze(2),
        grad_b.contiguous(),
        grad_c.contiguous(),
        grad_a.sum(0).transpose(1, 2).contiguous(),
        None if p.dt_weight is None else grad_dt_weight.sum(0).transpose(1, 2).contiguous(),
        None if p.dt_bias is None else grad_dt_bias.sum(0),
        None if p.skip is None else grad_skip.sum(0),
        None if grad_weight is None else grad_weight.sum(0).transpose(1, 2).contiguous(),
    ]


def _vectors_of_16(channels: int) -> int:
    return -(-channels // 16)


def _compiled(p: ScanProblem, slots: int) -> Any:
    """The problem as the compiled part takes it: dense parameters with channels last, rows in place where they lie."""

    def rows(tensor: Tensor) -> Tensor:  # (B, L, S, M) -> (B * L, S, M), a view wherever that is possible
        flat = tensor.detach().flatten(0, 1)
        return flat if flat.stride(-1) == 1 else flat.contiguous()

    def dense(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().contiguous()

    def channels_last(tensor: Tensor | None) -> Tensor | None:  # (K, D, M) -> (K, M, D)
        return None if tensor is None else tensor.detach().transpose(1, 2).contiguous()

    make = _native.ProblemFloat64 if p.x.dtype == torch.float64 else _native.ProblemFloat32
    return make(
        dense(p.x),
        rows(p.dt),
        rows(p.b),
        rows(p.c),
        channels_last(p.a),
        channels_last(p.dt_weight),
        dense(p.dt_bias),
        dense(p.skip),
        channels_last(p.weight),
        p.height,
        p.width,
        p.groups,
        p.softplus,
        STATE_INTERVAL,
        slots,
        torch.get_num_threads(),
        instruction_set(),
    )


def _scratch(compiled: Any, backward: bool) -> Tensor:
    return torch.empty(compiled.scratch_bytes(backward), dtype=torch.uint8)
