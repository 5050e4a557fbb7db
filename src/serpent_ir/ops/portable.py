"""The portable backend: plain torch on any device, no loop over time steps.

A direction's sequence is cut into segments; within one, all states are computed at once by a parallel prefix scan over
pairs (decay, state), (a1, s1) then (a2, s2) = (a1 a2, a2 s1 + s2), in log2(segment) passes. Decays are at most 1, and
nothing is divided by them: large decays and long sequences are harmless. The backward pass is the adjoint recurrence,
the same prefix scan in reversed time; states are recomputed segment by segment (ops/README.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from serpent_ir.ops.problem import CHUNK, ScanProblem
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


def _segment_size(p: ScanProblem) -> int:
    """Steps of a segment: the interval between kept states times or divided by a whole number, as memory allows."""
    allowed = _SEGMENT_ELEMENTS // (p.batch * p.channels * p.states)
    size = p.interval * max(1, allowed // p.interval)
    while size > max(allowed, CHUNK):
        size //= 2
    return size


def _segments(p: ScanProblem, k: int, starts: Iterable[int]) -> Iterator[_Segment]:
    """Segments of the sequence of direction k, one for each of their first steps."""
    sequence = scan_order(ORDERS_OF_DIRECTIONS[p.directions][k], p.height, p.width, p.x.device)
    size = _segment_size(p)
    streams = _streams(p, k)
    for start in starts:
        steps = slice(start, min(start + size, p.length))
        pixels = sequence[steps]
        x = p.x[:, pixels]
        raw = p.dt[:, pixels, 0] if p.dt_weight is None else p.dt[:, pixels, k] @ p.dt_weight[k].t()
        if p.dt_bias is not None:
            raw = raw + p.dt_bias[k]
        dt = F.softplus(raw) if p.softplus else raw
        b, c = (_spread(rows[:, pixels, streams], p.channels) for rows in (p.b, p.c))
        decay = torch.exp(dt.unsqueeze(-1) * p.a[k])
        yield _Segment(steps, pixels, x, raw, dt, b, c, decay, (dt * x).unsqueeze(-1) * b)


def _streams(p: ScanProblem, k: int) -> slice:
    return slice(k * p.groups, (k + 1) * p.groups)


def kept_states(p: ScanProblem) -> int:
    """How many states of a sequence `forward` keeps for `backward`: those between intervals."""
    return p.intervals - 1


def forward(p: ScanProblem, keep_states: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, L, D), the last states (B, K, D, N), the kept states (B, K, intervals - 1, N, D), none unless asked for."""
    p = p.in_state_dtype()
    y = p.x.new_zeros(p.x.shape) if p.skip is None else (p.x * p.skip.sum(0)).contiguous()
    last = p.x.new_empty(p.batch, p.directions, p.channels, p.states)
    kept = p.x.new_empty(p.batch, p.directions, p.intervals - 1 if keep_states else 0, p.states, p.channels)
    starts = range(0, p.length, _segment_size(p))
    for k in range(p.directions):
        state = p.x.new_zeros(p.batch, p.channels, p.states)
        for s in _segments(p, k, starts):
            h = s.states(state)
            y[:, s.pixels] += ((h if p.weight is None else h * p.weight[k]) * s.c).sum(-1)
            state = h[:, -1]
            if keep_states:
                first = s.steps.start // p.interval
                ends = h[:, -(s.steps.start + 1) % p.interval :: p.interval][:, : kept.shape[2] - first].transpose(2, 3)
                kept[:, k, first : first + ends.shape[1]] = ends
        last[:, k] = state
    return y, last, kept


def _backwards(p: ScanProblem, k: int, kept: Tensor) -> Iterator[tuple[_Segment, Tensor]]:
    """The segments of direction k from the last to the first, each with the states (B, D, N) before it."""
    size = _segment_size(p)
    stretch = max(size, p.interval)
    for first in reversed(range(0, p.length, stretch)):
        starts = range(first, min(first + stretch, p.length), size)
        interval = first // p.interval
        zeros = p.x.new_zeros(p.batch, p.channels, p.states)
        before = [kept[:, k, interval - 1].transpose(1, 2) if interval else zeros]
        for s in _segments(p, k, starts[:-1]):
            before.append(s.states(before[-1])[:, -1])
        yield from zip(_segments(p, k, reversed(starts)), reversed(before), strict=True)


def backward(p: ScanProblem, grad_y: Tensor, kept: Tensor) -> list[Tensor | None]:
    """Gradients of the problem's tensors, None where one is None."""
    p, grad_y = p.in_state_dtype(), grad_y.to(p.state_dtype)
    grad_x = p.x.new_zeros(p.x.shape) if p.skip is None else (grad_y * p.skip.sum(0)).contiguous()
    grad_dt, grad_b, grad_c, grad_a = (tensor.new_zeros(tensor.shape) for tensor in (p.dt, p.b, p.c, p.a))
    grad_dt_weight = None if p.dt_weight is None else p.dt_weight.new_zeros(p.dt_weight.shape)
    grad_dt_bias = None if p.dt_bias is None else p.dt_bias.new_zeros(p.dt_bias.shape)
    grad_skip = None if p.skip is None else (grad_y * p.x).sum((0, 1)).repeat(p.directions, 1)
    grad_weight = None if p.weight is None else p.weight.new_zeros(p.weight.shape)
    for k in range(p.directions):
        carry = p.x.new_zeros(p.batch, p.channels, p.states)  # decay * gradient of the state after the segment
        streams = _streams(p, k)
        for s, initial in _backwards(p, k, kept):
            h = s.states(initial)
            gy = grad_y[:, s.pixels].unsqueeze(-1)
            if grad_weight is not None:
                grad_weight[k] += (gy * h * s.c).sum((0, 1))
            gy = gy if p.weight is None else gy * p.weight[k]
            # g[t] = c[t] gy[t] + decay[t + 1] g[t + 1]: the prefix scan in reversed time.
            source = (gy * s.c).flip(1)
            source[:, 0] += carry
            next_decay = torch.cat([s.decay[:, 1:], torch.zeros_like(s.decay[:, :1])], dim=1)
            g = prefix_scan_(next_decay.flip(1), source).flip(1)
            past = g * s.decay
            carry = past[:, 0]
            product = past * torch.cat([initial.unsqueeze(1), h[:, :-1]], dim=1)
            through_b = (g * s.b).sum(-1)
            graw = s.x * through_b + (product * p.a[k]).sum(-1)
            if p.softplus:
                graw = graw * torch.sigmoid(s.dt_raw)
            grad_x[:, s.pixels] += s.dt * through_b
            grad_a[k] += (product * s.dt.unsqueeze(-1)).sum((0, 1))
            grad_b[:, s.pixels, streams] = _gather(g * (s.dt * s.x).unsqueeze(-1), p.groups)
            grad_c[:, s.pixels, streams] = _gather(gy * h, p.groups)
            if grad_dt_bias is not None:
                grad_dt_bias[k] += graw.sum((0, 1))
            if p.dt_weight is None or grad_dt_weight is None:
                grad_dt[:, s.pixels, 0] = graw
            else:
                grad_dt[:, s.pixels, k] = graw @ p.dt_weight[k]
                grad_dt_weight[k] += torch.einsum("btd,btr->dr", graw, p.dt[:, s.pixels, k])
    return [grad_x, grad_dt, grad_b, grad_c, grad_a, grad_dt_weight, grad_dt_bias, grad_skip, grad_weight]
