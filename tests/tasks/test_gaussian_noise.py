from __future__ import annotations

import pytest
import torch

from serpent_ir.errors import RangeError
from serpent_ir.tasks import AdditiveGaussianNoise


def test_noise_has_the_standard_deviation_asked_for_and_is_white() -> None:
    noise = AdditiveGaussianNoise(0.05)(torch.zeros(4, 3, 100, 100), torch.Generator().manual_seed(0))
    assert abs(noise.std().item() - 0.05) < 5e-4
    assert abs(noise.mean().item()) < 5e-4
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean() / noise.var()
    assert abs(neighbours.item()) < 0.01


def test_equal_seed_equal_noise() -> None:
    image = torch.rand(1, 3, 9, 11)
    noise = AdditiveGaussianNoise(0.1)
    first, again, other = (noise(image, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_generator_the_default_one_is_used() -> None:
    image = torch.zeros(1, 3, 4, 4)
    torch.manual_seed(7)
    first = AdditiveGaussianNoise(0.1)(image)
    torch.manual_seed(7)
    assert torch.equal(first, AdditiveGaussianNoise(0.1)(image))
    assert first.abs().max() > 0


def test_sigma_zero_changes_nothing() -> None:
    image = torch.rand(1, 3, 4, 4)
    assert torch.equal(AdditiveGaussianNoise(0.0)(image), image)


def test_negative_sigma_is_refused() -> None:
    with pytest.raises(RangeError, match=r"-0\.1"):
        AdditiveGaussianNoise(-0.1)
