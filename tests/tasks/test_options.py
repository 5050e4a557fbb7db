from __future__ import annotations

from typing import Any

import pytest
import torch

from serpent_ir import tasks
from serpent_ir.errors import RangeError
from serpent_ir.tasks import AdditiveGaussianNoise, GaussianBlur
from serpent_ir.tasks.options import draw


def test_each_image_gets_a_strength_of_its_own_from_the_whole_range() -> None:
    images = torch.zeros(400, 1, 1, 1)
    values = draw((2.0, 6.0), images, torch.Generator().manual_seed(0))
    assert values.shape == (400,) and values.dtype == torch.float32
    assert 2.0 <= values.min() < 2.1 and 5.9 < values.max() <= 6.0
    assert values.mean().item() == pytest.approx(4.0, abs=0.2)
    assert torch.equal(draw(3.0, images, None), torch.full((400,), 3.0))


def test_noise_of_varying_strength() -> None:
    noise = AdditiveGaussianNoise((0.0, 0.2))(torch.zeros(64, 3, 40, 40), torch.Generator().manual_seed(1))
    expected = draw((0.0, 0.2), noise, torch.Generator().manual_seed(1))
    torch.testing.assert_close(noise.std(dim=(1, 2, 3)), expected, rtol=0.05, atol=1e-4)


def test_blur_of_varying_strength_is_the_fixed_one_for_each_image() -> None:
    images = torch.rand(3, 2, 20, 150, dtype=torch.float64)
    blurred = GaussianBlur(21, (0.5, 4.0))(images, torch.Generator().manual_seed(2))
    for index, sigma in enumerate(draw((0.5, 4.0), images, torch.Generator().manual_seed(2)).tolist()):
        torch.testing.assert_close(blurred[index : index + 1], GaussianBlur(21, sigma)(images[index : index + 1]))


def test_adjoint_of_varying_strength() -> None:
    x, y = torch.randn(2, 2, 3, 30, 11, dtype=torch.float64)
    blur = GaussianBlur(9, (0.5, 4.0))
    left = (blur(x, torch.Generator().manual_seed(3)) * y).sum()
    assert torch.allclose(left, (x * blur.adjoint(y, torch.Generator().manual_seed(3))).sum())


@pytest.mark.parametrize("given,kept", [(25, 25.0), ([5, 10], (5.0, 10.0)), ((0, 0), (0.0, 0.0))])
def test_a_number_or_a_pair(given: Any, kept: Any) -> None:
    assert tasks.create("denoise", sigma=given).options == {"sigma": kept}


@pytest.mark.parametrize("given", [[10, 5], [1], [1, 2, 3], [0, 256], [0, None], [0, float("nan")], "25", None, True])
def test_what_is_neither_is_refused(given: Any) -> None:
    with pytest.raises(RangeError, match="lowest"):
        tasks.create("denoise", sigma=given)


def test_an_option_that_does_not_vary_takes_no_pair() -> None:
    with pytest.raises(RangeError, match="whole number"):
        tasks.create("deblur", kernel_size=[3, 5])
