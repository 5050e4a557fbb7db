from __future__ import annotations

import math

import numpy as np
import torch

from serpent_ir.restoration.fidelity_map import COLOURS, WINDOW_SIGMA, in_colours, local_rms


def test_local_rms_is_the_weighted_mean_square() -> None:
    values = torch.zeros(3, 41, 47)
    values[1, 20, 23] = 1
    offsets = np.exp(-0.5 * (np.arange(-16, 17) / WINDOW_SIGMA) ** 2)
    weights = np.outer(offsets, offsets) / offsets.sum() ** 2
    found = local_rms(values)[0, 4:37, 7:40].double().numpy()
    np.testing.assert_allclose(found**2, weights / 3, rtol=1e-4, atol=1e-9)
    assert torch.allclose(local_rms(torch.full((3, 2, 3), -0.25)), torch.tensor(0.25))


def test_white_noise_stays_within_the_limits() -> None:
    noise = torch.randn(3, 300, 300, generator=torch.Generator().manual_seed(0))
    relative = local_rms(noise)
    assert ((relative > 0.91) & (relative < 1.09)).float().mean() > 0.99
    assert relative.min() > 0.8 and relative.max() < 1.25


def test_colours() -> None:
    ratios = torch.tensor([[0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 100.0, math.inf, math.nan, 2**0.25]]).reshape(1, 2, 5)
    colours = in_colours(ratios).mul(255).round().int().permute(1, 2, 0).reshape(-1, 3).tolist()
    blue, red = list(COLOURS[0]), list(COLOURS[-1])
    assert colours[:3] == [blue, blue, list(COLOURS[2])] and colours[5:9] == [red, red, red, [0, 0, 0]]
    assert colours[3:5] == [[221, 221, 221], list(COLOURS[6])]
    halfway = [(first + second) / 2 for first, second in zip(COLOURS[4], COLOURS[5], strict=True)]
    assert np.abs(np.array(colours[9]) - halfway).max() <= 1


def test_grey_is_the_lightest_and_both_ends_grow_darker() -> None:
    table = torch.tensor(COLOURS, dtype=torch.float64) / 255
    light = ((table + 0.055) / 1.055) ** 2.4 @ torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64)
    assert bool((light[:5].diff() > 0).all()) and bool((light[4:].diff() < 0).all())
