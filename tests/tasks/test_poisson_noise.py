from __future__ import annotations

import pytest
import torch

from serpent_ir.errors import RangeError
from serpent_ir.tasks import PoissonNoise


def test_mean_stays_and_variance_is_proportional_to_the_value() -> None:
    levels = torch.tensor([0.05, 0.2, 1.0]).view(1, 3, 1, 1).expand(1, 3, 200, 200)
    noisy = PoissonNoise(0.1)(levels, torch.Generator().manual_seed(0)).flatten(2)[0]
    torch.testing.assert_close(noisy.mean(dim=1), levels[0, :, 0, 0], rtol=0.02, atol=0)
    torch.testing.assert_close(noisy.var(dim=1), 0.01 * levels[0, :, 0, 0], rtol=0.03, atol=0)
    photons = noisy / 0.01
    assert (photons - photons.round()).abs().max() < 1e-3  # they are counted


def test_each_image_has_its_strength_and_black_stays() -> None:
    images = torch.full((6, 3, 60, 60), 0.5)
    images[:, 2] = -0.1
    noisy = PoissonNoise((0.0, 0.2))(images, torch.Generator().manual_seed(1))
    spread = noisy[:, :2].std(dim=(1, 2, 3))
    shares = torch.rand(6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(spread, (0.2 * shares * 0.5**0.5).float(), rtol=0.05, atol=0)
    assert torch.equal(noisy[:, 2], images[:, 2])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("sigma", [0.0, 1e-9, 1e-5, 1e-4])
def test_none_or_next_to_none(sigma: float, device: str) -> None:
    image = torch.rand(2, 3, 40, 50, device=device)
    assert (PoissonNoise(sigma)(image) - image).abs().max() <= (1e-3 if sigma == 1e-4 else 0)


def test_negative_is_refused() -> None:
    with pytest.raises(RangeError, match=r"-0\.1"):
        PoissonNoise(-0.1)
