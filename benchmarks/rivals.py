"""Other ways to run the selective scan of a sequence in plain torch, to compare with: two loops and a parallel scan.

All take u and delta (B, L, D), A (D, N), B and C (B, L, N), D (D,), float32, and return y (B, L, D) with
dt = softplus(delta), h[t] = exp(dt A) h[t-1] + dt B u, y[t] = C h[t] + D u.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from serpent_ir.ops import reference, selective_scan

TOLERANCE = 1e-4
SEQUENCE_ARGUMENTS = ("u", "delta", "A", "B", "C", "D")


def loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The recurrence as it is written down: a step for all channels and states at once. Differentiable."""
    h = u.new_zeros(u.shape[0], *A.shape)
    rows = []
    for x, dt, b, c in zip(u.unbind(1), F.softplus(delta).unbind(1), B.unbind(1), C.unbind(1), strict=True):
        step = dt[..., None]
        h = torch.exp(step * A) * h + step * x[..., None] * b[:, None]
        rows.append((h * c[:, None]).sum(-1))
    return torch.stack(rows, dim=1) + D * u


def lean_loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The best a loop can do: all but one fused multiply-add is done before or after it. Not differentiable."""
    decays, states = decays_and_inputs(u, delta, A, B)
    rows, decay_rows = states.unbind(1), decays.unbind(1)
    for t in range(1, len(rows)):
        rows[t].addcmul_(decay_rows[t], rows[t - 1])
    return read_out(states, u, C, D)


def parallel_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """All states at once by a work-efficient prefix scan over time, as mamba.py has it. Differentiable."""
    decays, states = decays_and_inputs(u, delta, A, B)
    return read_out(PrefixScan.apply(decays, states), u, C, D)


def decays_and_inputs(u: Tensor, delta: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """a and x of h[t] = a[t] h[t-1] + x[t], both (B, L, D, N)."""
    dt = F.softplus(delta)
    return torch.exp(dt[..., None] * A), (dt * u)[..., None] * B[:, :, None]


def read_out(h: Tensor, u: Tensor, C: Tensor, D: Tensor) -> Tensor:
    return torch.einsum("bldn,bln->bld", h, C) + D * u


class PrefixScan(torch.autograd.Function):
    """h[t] = a[t] h[t-1] + x[t] for (B, L, D, N). Its adjoint is the same scan in reversed time."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor) -> Tensor:
        h = sweep(a, x, reverse=False)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        a, h = ctx.saved_tensors
        following = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], dim=1)
        grad_x = sweep(following, gradients[0], reverse=True)
        grad_a = torch.zeros_like(a)
        torch.mul(grad_x[:, 1:], h[:, :-1], out=grad_a[:, 1:])
        return grad_a, grad_x


def sweep(a: Tensor, x: Tensor, reverse: bool) -> Tensor:
    """The scan by an up-sweep and a down-sweep (Blelloch) over time, padded to a power of two; in reversed time too.

    Segments (a1, x1), (a2, x2) that follow each other make one: (a1 a2, a2 x1 + x2). The up-sweep joins neighbours
    to segments of 2, 4, 8 ... steps, the down-sweep completes the positions between their ends.
    """
    length = x.shape[1]
    padded = 1 << (length - 1).bit_length()
    padding = (0, 0, 0, 0, padded - length, 0) if reverse else (0, 0, 0, 0, 0, padded - length)
    a, x = (F.pad(tensor, padding) if padded > length else tensor.clone() for tensor in (a, x))
    for first, second in pairs(padded, reverse):
        x[:, second].addcmul_(a[:, second], x[:, first])
        a[:, second].mul_(a[:, first])
    return x[:, padded - length :] if reverse else x[:, :length]


def pairs(length: int, reverse: bool) -> Iterator[tuple[slice, slice]]:
    """Positions of the segments to join, pass by pass: those that come first in time, those that take them in."""
    strides = [2**level for level in range((length - 1).bit_length())]
    for s in strides:
        yield (
            (slice(s, None, 2 * s), slice(0, None, 2 * s))
            if reverse
            else (
                slice(s - 1, None, 2 * s),
                slice(2 * s - 1, None, 2 * s),
            )
        )
    for s in reversed(strides[:-1]):
        yield (
            (slice(2 * s, None, 2 * s), slice(s, length - s, 2 * s))
            if reverse
            else (
                slice(2 * s - 1, length - s, 2 * s),
                slice(3 * s - 1, None, 2 * s),
            )
        )


def ours(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """`selective_scan` on sequences that lie in memory as a linear layer leaves them, (B, L, ...)."""
    y = selective_scan(u.mT, delta.mT, A, B.mT, C.mT, D, delta_softplus=True)
    assert isinstance(y, Tensor)
    return y.mT


RIVALS: dict[str, Callable[..., Tensor]] = {"parallel scan": parallel_scan, "lean loop": lean_loop, "loop": loop}
NOT_DIFFERENTIABLE = ("lean loop",)


def sequence_inputs(length: int, channels: int, states: int, seed: int = 0) -> dict[str, Tensor]:
    """Arguments of the functions above for one sequence; step sizes as at initialisation, about 0.001 to 0.1."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {
        "u": torch.randn(1, length, channels, generator=generator),
        "delta": torch.randn(1, length, channels, generator=generator) - 4.5,
        "A": -torch.arange(1.0, states + 1).expand(channels, states).contiguous(),
        "B": torch.randn(1, length, states, generator=generator),
        "C": torch.randn(1, length, states, generator=generator),
        "D": torch.ones(channels),
    }
    return {name: inputs[name] for name in SEQUENCE_ARGUMENTS}


def refuse_when_a_rival_is_wrong() -> None:
    """Exit unless each equals the float64 oracle, in output and, where it has them, in all gradients."""
    inputs = {name: value.requires_grad_() for name, value in sequence_inputs(77, channels=5, states=3).items()}
    u, delta, A, B, C, D = inputs.values()
    y, _ = reference.selective_scan(u.mT, delta.mT, A, B.mT, C.mT, D, delta_softplus=True)
    upstream = torch.sin(torch.arange(y.numel(), dtype=y.dtype)).view_as(y.mT)
    expected = [y.mT, *torch.autograd.grad(y.mT, list(inputs.values()), upstream)]
    for name, function in {"selective_scan": ours, **RIVALS}.items():
        if name in NOT_DIFFERENTIABLE:
            with torch.no_grad():
                computed = [function(**inputs)]
        else:
            y = function(**inputs)
            computed = [y, *torch.autograd.grad(y, list(inputs.values()), upstream.to(y.dtype))]
        for value, right in zip(computed, expected, strict=False):
            error = float(((value - right).abs().max() / right.abs().max()).detach())
            if not error < TOLERANCE:
                raise SystemExit(f"refused: {name} is off by {error:.1e}")
