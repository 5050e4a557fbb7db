from __future__ import annotations

import pytest
import torch

from serpent_ir.restoration.noise_level import noise_level

ROWS, COLUMNS = torch.meshgrid(torch.linspace(0, 1, 192), torch.linspace(0, 1, 240), indexing="ij")
PICTURE = torch.stack([0.3 + 0.4 * ROWS * COLUMNS, (COLUMNS > 0.5) * 0.6, 0.5 + 0.2 * (6 * ROWS).sin()])


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.2])
def test_white_noise_on_a_picture_with_edges(sigma: float) -> None:
    noisy = PICTURE + sigma * torch.randn(PICTURE.shape, generator=torch.Generator().manual_seed(0))
    assert noise_level(noisy) == pytest.approx(sigma, rel=0.02)


def test_no_noise_and_no_room() -> None:
    assert noise_level(PICTURE) < 1e-3
    assert noise_level(torch.rand(3, 2, 50)) == 0 and noise_level(torch.rand(3, 1, 1)) == 0
