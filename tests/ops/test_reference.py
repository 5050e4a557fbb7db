"""The oracle itself: against numbers worked out by hand, and against a second way of computing the same."""

from __future__ import annotations

import math

import torch

from serpent_ir.ops import reference


def test_two_steps_by_hand() -> None:
    u = torch.tensor([[[3.0, 5.0]]])
    delta = torch.tensor([[[0.5, 0.25]]])
    A = torch.tensor([[-1.0, -2.0]])
    B = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])  # (B, N, L)
    C = torch.tensor([[[1.0, -1.0], [2.0, 0.5]]])
    h0 = [0.5 * 1 * 3, 0.5 * 3 * 3]
    h1 = [math.exp(-0.25) * h0[0] + 0.25 * 2 * 5, math.exp(-0.5) * h0[1] + 0.25 * 4 * 5]
    expected = [1 * h0[0] + 2 * h0[1] + 10 * 3, -1 * h1[0] + 0.5 * h1[1] + 10 * 5]
    y, last = reference.selective_scan(u, delta, A, B, C, D=torch.tensor([10.0]))
    torch.testing.assert_close(y, torch.tensor([[expected]], dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(last, torch.tensor([[h1]], dtype=torch.float64), rtol=1e-12, atol=0)


def test_time_invariant_recurrence_equals_convolution() -> None:
    batch, channels, states, length = 2, 3, 5, 700
    u = torch.randn(batch, channels, length)
    delta = torch.rand(channels) * 0.1 + 1e-3
    A = -torch.rand(channels, states) * states - 0.1
    B, C = torch.randn(channels, states), torch.randn(channels, states)
    recurrence = reference.time_invariant_recurrence(u, delta, A, B, C)
    convolution = reference.time_invariant_convolution(u, delta, A, B, C)
    assert (recurrence - convolution).abs().max() < 1e-10
    steps = delta[None, :, None].expand(batch, -1, length)
    selective, _ = reference.selective_scan(u, steps, A, B, C)
    assert (selective - recurrence).abs().max() < 1e-10


def test_map_is_the_sum_of_four_sequences() -> None:
    height, width, channels, directions, states, rank = 3, 4, 2, 4, 3, 2
    x = torch.randn(1, height, width, channels)
    dt_low = torch.randn(1, height, width, directions, rank)
    B, C = torch.randn(2, 1, height, width, directions, states)
    dt_weight, dt_bias = torch.randn(directions, channels, rank), torch.randn(directions, channels)
    A, D = -torch.rand(directions, channels, states) - 0.1, torch.randn(directions, channels)
    expected = torch.zeros(1, channels, height, width, dtype=torch.float64)
    for k in range(directions):
        rows, columns = zip(*reference.pixels_in_order(k, height, width), strict=True)
        sequence = (slice(None), list(rows), list(columns))
        delta = (dt_low[sequence][:, :, k] @ dt_weight[k].t()).transpose(1, 2)
        y, _ = reference.selective_scan(
            x[sequence].transpose(1, 2), delta, A[k], B[sequence][:, :, k].transpose(1, 2),
            C[sequence][:, :, k].transpose(1, 2), D[k], delta_bias=dt_bias[k], delta_softplus=True,
        )  # fmt: skip
        expected[:, :, list(rows), list(columns)] += y
    y = reference.selective_scan_2d(x, dt_low, B, C, dt_weight, dt_bias, A, D)
    torch.testing.assert_close(y, expected.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6)  # delta was made in float32
