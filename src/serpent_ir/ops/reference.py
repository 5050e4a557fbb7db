"""The oracle: the selective scan as loops over time in float64, written to be read and trusted, not to be fast.

Frozen: work on speed never edits this file. Everything is differentiable by torch's autograd, so it is the oracle of
the gradients too. Equations: ops/README.md; paper, sections 2.1 and 2.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """One sequence. u, delta, z: (B, D, L); A: (D, N); B, C: (D, N), (B, N, L) or (B, G, N, L); D, delta_bias: (D,).

    Returns y (B, D, L) and the last state (B, D, N), both float64.
    """
    batch, channels, length = u.shape
    states = A.shape[1]

    def at_every_step(rows: Tensor) -> tuple[Tensor, ...]:  # L times something that broadcasts to (B, D, N)
        rows = rows.double()
        if rows.ndim == 2:
            return (rows,) * length
        if rows.ndim == 3:
            rows = rows[:, None]
        return rows.repeat_interleave(channels // rows.shape[1] if rows.shape[1] > 1 else 1, dim=1).unbind(-1)

    u, delta, A = u.double(), delta.double(), A.double()
    if delta_bias is not None:
        delta = delta + delta_bias.double()[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    h = u.new_zeros(batch, channels, states)
    outputs = []
    steps = (u.unsqueeze(-1).unbind(2), delta.unsqueeze(-1).unbind(2), at_every_step(B), at_every_step(C))
    for u_t, dt, B_t, C_t in zip(*steps, strict=True):
        h = torch.exp(dt * A) * h + dt * B_t * u_t
        outputs.append((C_t * h).sum(-1))
    y = torch.stack(outputs, dim=-1)
    if D is not None:
        y = y + D.double()[:, None] * u
    if z is not None:
        y = y * F.silu(z.double())
    return y, h


def pixels_in_order(order: int, height: int, width: int) -> list[tuple[int, int]]:
    """(row, column) of every step of a scan order: 0 rows, 1 columns, 2 and 3 the same backwards."""
    if order in (0, 2):
        pixels = [(row, column) for row in range(height) for column in range(width)]
    else:
        pixels = [(row, column) for column in range(width) for row in range(height)]
    return pixels[::-1] if order >= 2 else pixels


def selective_scan_2d(
    x: Tensor, dt_low: Tensor, B: Tensor, C: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor
) -> Tensor:
    """The map. x: (B, H, W, D); dt_low: (B, H, W, K, R); B, C: (B, H, W, K, N); dt_weight: (K, D, R);
    dt_bias, D: (K, D); A: (K, D, N). Returns (B, H, W, D), float64."""
    x, dt_low, B, C = x.double(), dt_low.double(), B.double(), C.double()
    dt_weight, dt_bias, A, D = dt_weight.double(), dt_bias.double(), A.double(), D.double()
    batch, height, width, channels = x.shape
    directions, _, states = A.shape
    orders = {1: [0], 2: [0, 2], 4: [0, 1, 2, 3]}[directions]

    def pixels(tensor: Tensor) -> list[tuple[Tensor, ...]]:  # [row][column]
        return [row.unbind(1) for row in tensor.unbind(1)]

    x_at, dt_low_at, B_at, C_at = pixels(x), pixels(dt_low), pixels(B), pixels(C)
    total = torch.zeros_like(x)
    for k, order in enumerate(orders):
        h = x.new_zeros(batch, channels, states)
        outputs: dict[tuple[int, int], Tensor] = {}
        for row, column in pixels_in_order(order, height, width):
            dt = F.softplus(dt_bias[k] + dt_low_at[row][column][:, k] @ dt_weight[k].t())[:, :, None]
            u = x_at[row][column]
            h = torch.exp(dt * A[k]) * h + dt * B_at[row][column][:, k, None, :] * u[:, :, None]
            outputs[row, column] = (C_at[row][column][:, k, None, :] * h).sum(-1) + D[k] * u
        rows = [torch.stack([outputs[row, column] for column in range(width)], dim=1) for row in range(height)]
        total = total + torch.stack(rows, dim=1)
    return total


def time_invariant_recurrence(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Constant system as a recurrence (paper, "RNN mode"). u: (B, D, L); delta: (D,); A, B, C: (D, N); y: (B, D, L)."""
    u, delta, A, B, C = u.double(), delta.double()[:, None], A.double(), B.double(), C.double()
    h = u.new_zeros(u.shape[0], *A.shape)
    outputs = []
    for t in range(u.shape[-1]):
        h = torch.exp(delta * A) * h + delta * B * u[:, :, t, None]
        outputs.append((C * h).sum(-1))
    return torch.stack(outputs, dim=-1)


def time_invariant_convolution(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The same system as one long convolution by FFT (paper, section 2.1, "CNN mode": the kernel C A^t B)."""
    u, delta, A, B, C = u.double(), delta.double()[:, None], A.double(), B.double(), C.double()
    length = u.shape[-1]
    steps = torch.arange(length, dtype=torch.float64, device=u.device)
    kernel = torch.einsum("dn,dnt->dt", C * delta * B, torch.exp((delta * A)[:, :, None] * steps))
    size = 2 * length  # no wrap-around
    product = torch.fft.rfft(u, n=size) * torch.fft.rfft(kernel, n=size)
    return torch.fft.irfft(product, n=size)[..., :length]
