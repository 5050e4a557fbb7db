"""The torch operator `serpent::scan`: schema, backends, shapes for tracing, autograd.

One operator serves sequences and maps. Its arguments, all of one floating dtype (float32 or float64), are

    x          (B, L, D)          the input, L = height * width pixels, channels last
    dt         (B, L, K, R)       low-rank step sizes, or (B, L, 1, D) when dt_weight is None
    b, c       (B, L, K * G, N)   one row for each direction or for each of G channel groups (K or G is 1)
    a          (K, D, N)          negative
    dt_weight  (K, D, R) or None
    dt_bias, skip (K, D) or None
    weight     (K, D, N) or None  a factor of c that depends on channel and state only

and it returns y (B, L, D), the last state of every direction (B, K, D, N), which carries no gradient, and the states
kept for the backward pass (empty unless keep_states).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from serpent_ir.errors import DtypeError, RangeError, ShapeError
from serpent_ir.ops import native, portable
from serpent_ir.ops.backends import choose
from serpent_ir.ops.scan_order import ORDERS_OF_DIRECTIONS

STATE_INTERVAL = 64
"""Steps between two states kept for the backward pass."""

_IMPLEMENTATIONS = {"native": native, "portable": portable}


_TENSORS = (
    "Tensor x, Tensor dt, Tensor b, Tensor c, Tensor a, "
    "Tensor? dt_weight, Tensor? dt_bias, Tensor? skip, Tensor? weight"
)
_SIZES = "SymInt height, SymInt width, bool softplus, str backend"


@torch.library.custom_op(
    "serpent::scan", mutates_args=(), schema=f"({_TENSORS}, {_SIZES}, bool keep_states) -> (Tensor, Tensor, Tensor)"
)
def scan(
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
    backend: str,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, dt, b, c, a, dt_weight, dt_bias, skip, weight, height, width)
    if a.device.type == "cpu" and not bool((a < 0).all()):  # elsewhere the test would wait for the device
        raise RangeError(
            f"A has entries from {a.min().item():g} to {a.max().item():g}",
            "negative entries only",
            "Parametrise A as -exp(A_log): a system with A >= 0 does not decay.",
        )
    implementation = _IMPLEMENTATIONS[choose(x.device, backend or None).backend]
    return implementation.forward(
        x, dt, b, c, a, dt_weight, dt_bias, skip, weight, height, width, softplus, STATE_INTERVAL, keep_states
    )


@scan.register_fake
def _(
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
    backend: str,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, channels = x.shape
    directions, _, states = a.shape
    kept = (length + STATE_INTERVAL - 1) // STATE_INTERVAL - 1 if keep_states else 0
    return (
        x.new_empty(x.shape),
        x.new_empty(batch, directions, channels, states),
        x.new_empty(batch, directions, kept, states, channels),
    )


@torch.library.custom_op(
    "serpent::scan_backward", mutates_args=(), schema=f"(Tensor grad_y, Tensor kept, {_TENSORS}, {_SIZES}) -> Tensor[]"
)
def scan_backward(
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
    backend: str,
) -> list[Tensor]:
    """Gradients of the tensors among x .. weight that are not None, in their order."""
    implementation = _IMPLEMENTATIONS[choose(x.device, backend or None).backend]
    gradients = implementation.backward(
        grad_y, kept, x, dt, b, c, a, dt_weight, dt_bias, skip, weight, height, width, softplus, STATE_INTERVAL
    )
    return [gradient for gradient in gradients if gradient is not None]


@scan_backward.register_fake
def _(
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
    backend: str,
) -> list[Tensor]:
    inputs = (x, dt, b, c, a, dt_weight, dt_bias, skip, weight)
    return [tensor.new_empty(tensor.shape) for tensor in inputs if tensor is not None]


def _check(
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
) -> None:
    """What the kernels rely on. The public functions have checked their own arguments, by their own names, before."""
    if x.ndim != 3 or a.ndim != 3 or b.ndim != 4 or 0 in (*x.shape, *a.shape, b.shape[2]):
        raise ShapeError(
            f"x {tuple(x.shape)}, a {tuple(a.shape)}, b {tuple(b.shape)}", "(B, L, D), (K, D, N), (B, L, S, N)"
        )
    batch, length, channels = x.shape
    directions, _, states = a.shape
    streams = b.shape[2]
    groups = streams // directions
    if height * width != length:
        raise ShapeError(f"height {height} and width {width}", f"height * width = L = {length}")
    if directions not in ORDERS_OF_DIRECTIONS or streams != directions * groups or 1 not in (directions, groups):
        raise ShapeError(f"{directions} directions and {streams} rows", "K = 1, 2 or 4, and K * G rows with K or G = 1")
    if channels % groups:
        raise ShapeError(f"{groups} groups of {channels} channels", "a number of groups that divides D")
    if dt_weight is None and directions != 1:
        raise ShapeError(f"no dt_weight with {directions} directions", "full-rank step sizes with one direction only")
    rank = 0 if dt_weight is None else dt_weight.shape[-1]
    expected = {
        "dt": (dt, (batch, length, 1, channels) if dt_weight is None else (batch, length, directions, rank)),
        "b": (b, (batch, length, streams, states)),
        "c": (c, (batch, length, streams, states)),
        "a": (a, (directions, channels, states)),
        "dt_weight": (dt_weight, (directions, channels, rank)),
        "dt_bias": (dt_bias, (directions, channels)),
        "skip": (skip, (directions, channels)),
        "weight": (weight, (directions, channels, states)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ShapeError(f"{name} of serpent::scan has shape {tuple(tensor.shape)}", str(shape))
        if tensor.dtype != x.dtype or x.dtype not in (torch.float32, torch.float64):
            raise DtypeError(f"x of {x.dtype} and {name} of {tensor.dtype}", "float32 or float64, the same for all")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    tensors, (ctx.height, ctx.width, ctx.softplus, backend, keep_states) = inputs[:9], inputs[9:]
    if not keep_states:
        raise RuntimeError("serpent::scan was called with keep_states=False, but a gradient is needed")
    ctx.backend = choose(tensors[0].device, backend or None).backend  # a backward may run outside of use_backend
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.save_for_backward(output[2], *tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, grad_kept: Tensor | None) -> tuple[Any, ...]:
    kept, *tensors = ctx.saved_tensors
    if grad_y is None:
        return (None,) * 14
    found = iter(scan_backward(grad_y, kept, *tensors, ctx.height, ctx.width, ctx.softplus, ctx.backend))
    return (*(None if tensor is None else next(found) for tensor in tensors), None, None, None, None, None)


torch.library.register_autograd("serpent::scan", _backward, setup_context=_setup_context)
