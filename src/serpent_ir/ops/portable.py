"""The portable backend: plain torch on any device, no loop over time steps.

A direction's sequence is cut into segments; within one, all states are computed at once by a parallel prefix scan over
pairs (decay, state), (a1, s1) then (a2, s2) = (a1 a2, a2 s1 + s2), in log2(segment) passes. Decays are at most 1, and
nothing is divided by them: large decays and long sequences are harmless. The backward pass is the adjoint recurrence,
the same prefix scan in reversed time; states are recomputed segment by segment (ops/README.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from serpent_ir.ops.scan_order import ORDERS_OF_DIRECTIONS, scan_order

_SEGMENT_ELEMENTS = 1 << 21  # of one (B, steps, D, N) tensor; a handful of them is alive at a time


def prefix_scan_(decay: Tensor, state: Tensor) -> Tensor:
    """In place along dim 1: state[t] = decay[t] * state[t - 1] + state[t]. `decay` is overwritten with its products."""
    offset, steps = 1, state.shape[1]
    while offset < steps:
        state[:, offset:] += decay[:, offset:] * state[:, :-offset]
        decay[:, offset:] = decay[:, offset:] * decay[:, :-offset]
        offset *= 2
    return state


@dataclass(frozen=True)
class _Segment:
    """Everything of one direction and one stretch of its sequence, in the order of the scan."""

    steps: slice  # of the sequence
    pixels: Tensor  # (T,)
    x: Tensor  # (B, T, D)
    dt_raw: Tensor  # (B, T, D), before softplus
    dt: Tensor  # (B, T, D)
    b: Tensor  # (B, T, D or 1, N)
    c: Tensor  # (B, T, D or 1, N)
    decay: Tensor  # (B, T, D, N)
    drive: Tensor  # (B, T, D, N)

    def states(self, before: Tensor) -> Tensor:
        """(B, T, D, N) from the state (B, D, N) before the segment."""
        state = self.drive.clone()
        state[:, 0] += self.decay[:, 0] * before
        return prefix_scan_(self.decay.clone(), state)


def _spread(rows: Tensor, channels: int) -> Tensor:
    """(B, T, G, N) -> broadcastable to (B, T, D, N)."""
    groups = rows.shape[2]
    return rows if groups == 1 else rows.repeat_interleave(channels // groups, dim=2)


def _gather(gradient: Tensor, groups: int) -> Tensor:
    """The adjoint of `_spread`: (B, T, D, N) -> (B, T, G, N)."""
    return gradient.unflatten(2, (groups, -1)).sum(3)


def _segments(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    a: Tensor,
    dt_weight: Tensor | None,
    dt_bias: Tensor | None,
    height: int,
    width: int,
    softplus: bool,
    interval: int,
    k: int,
    reverse: bool = False,
) -> Iterator[_Segment]:
    batch, length, channels = x.shape
    directions, _, states = a.shape
    groups = b.shape[2] // directions
    sequence = scan_order(ORDERS_OF_DIRECTIONS[directions][k], height, width, x.device)
    size = interval * max(1, _SEGMENT_ELEMENTS // (interval * batch * channels * states))
    starts = range(0, length, size)
    for start in reversed(starts) if reverse else starts:
        steps = slice(start, min(start + size, length))
        pixels = sequence[steps]
        xs = x[:, pixels]
        raw = dt[:, pixels, 0] if dt_weight is None else dt[:, pixels, k] @ dt_weight[k].t()
        if dt_bias is not None:
            raw = raw + dt_bias[k]
        dts = F.softplus(raw) if softplus else raw
        streams = slice(k * groups, (k + 1) * groups)
        bs, cs = _spread(b[:, pixels, streams], channels), _spread(c[:, pixels, streams], channels)
        decay = torch.exp(dts.unsqueeze(-1) * a[k])
        yield _Segment(steps, pixels, xs, raw, dts, bs, cs, decay, (dts * xs).unsqueeze(-1) * bs)


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
    y = x.new_zeros(x.shape) if skip is None else (x * skip.sum(0)).contiguous()
    last = x.new_empty(batch, directions, channels, states)
    chunks = -(-length // interval) if keep_states else 1
    kept = x.new_empty(batch, directions, chunks - 1, states, channels)
    for k in range(directions):
        state = x.new_zeros(batch, channels, states)
        for s in _segments(x, dt, b, c, a, dt_weight, dt_bias, height, width, softplus, interval, k):
            h = s.states(state)
            y[:, s.pixels] += ((h if weight is None else h * weight[k]) * s.c).sum(-1)
            state = h[:, -1]
            if keep_states:
                first = s.steps.start // interval
                ends = h[:, interval - 1 :: interval][:, : chunks - 1 - first].transpose(2, 3)
                kept[:, k, first : first + ends.shape[1]] = ends
        last[:, k] = state
    return y, last, kept


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
    batch, _, channels = x.shape
    directions, _, states = a.shape
    groups = b.shape[2] // directions
    grad_x = x.new_zeros(x.shape) if skip is None else (grad_y * skip.sum(0)).contiguous()
    grad_dt, grad_b, grad_c, grad_a = (tensor.new_zeros(tensor.shape) for tensor in (dt, b, c, a))
    grad_dt_weight = None if dt_weight is None else dt_weight.new_zeros(dt_weight.shape)
    grad_dt_bias = None if dt_bias is None else dt_bias.new_zeros(dt_bias.shape)
    grad_skip = None if skip is None else (grad_y * x).sum((0, 1)).repeat(directions, 1)
    grad_weight = None if weight is None else weight.new_zeros(weight.shape)
    for k in range(directions):
        carry = x.new_zeros(batch, channels, states)  # decay * gradient of the state after the segment
        streams = slice(k * groups, (k + 1) * groups)
        for s in _segments(x, dt, b, c, a, dt_weight, dt_bias, height, width, softplus, interval, k, reverse=True):
            start = s.steps.start // interval
            initial = kept[:, k, start - 1].transpose(1, 2) if start else x.new_zeros(batch, channels, states)
            h = s.states(initial)
            gy = grad_y[:, s.pixels].unsqueeze(-1)
            if grad_weight is not None:
                grad_weight[k] += (gy * h * s.c).sum((0, 1))
            gy = gy if weight is None else gy * weight[k]
            # g[t] = c[t] gy[t] + decay[t + 1] g[t + 1]: the prefix scan in reversed time.
            source = (gy * s.c).flip(1)
            source[:, 0] += carry
            next_decay = torch.cat([s.decay[:, 1:], torch.zeros_like(s.decay[:, :1])], dim=1)
            g = prefix_scan_(next_decay.flip(1), source).flip(1)
            past = g * s.decay
            carry = past[:, 0]
            product = past * torch.cat([initial.unsqueeze(1), h[:, :-1]], dim=1)
            through_b = (g * s.b).sum(-1)
            graw = s.x * through_b + (product * a[k]).sum(-1)
            if softplus:
                graw = graw * torch.sigmoid(s.dt_raw)
            grad_x[:, s.pixels] += s.dt * through_b
            grad_a[k] += (product * s.dt.unsqueeze(-1)).sum((0, 1))
            grad_b[:, s.pixels, streams] = _gather(g * (s.dt * s.x).unsqueeze(-1), groups)
            grad_c[:, s.pixels, streams] = _gather(gy * h, groups)
            if grad_dt_bias is not None:
                grad_dt_bias[k] += graw.sum((0, 1))
            if dt_weight is None or grad_dt_weight is None:
                grad_dt[:, s.pixels, 0] = graw
            else:
                grad_dt[:, s.pixels, k] = graw @ dt_weight[k]
                grad_dt_weight[k] += torch.einsum("btd,btr->dr", graw, dt[:, s.pixels, k])
    return [grad_x, grad_dt, grad_b, grad_c, grad_a, grad_dt_weight, grad_dt_bias, grad_skip, grad_weight]
