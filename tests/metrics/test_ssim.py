from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from serpent_ir.errors import DtypeError, ShapeError
from serpent_ir.metrics import ssim


def smooth_pair(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A target that varies slowly (so that structure exists) and a noisy copy of it."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(*shape[:2], 4, 5, generator=generator)
    target = torch.nn.functional.interpolate(coarse, shape[2:], mode="bilinear")
    return target + 0.05 * torch.randn(shape, generator=generator), target


def ssim_map(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """One channel, float64, by hand: equation 13 of Wang et al. 2004 at every position the window fits."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def average(values: np.ndarray) -> np.ndarray:
        return scipy.signal.correlate2d(values, window, mode="valid")

    mean_x, mean_y = average(x), average(y)
    variance_x, variance_y = average(x * x) - mean_x**2, average(y * y) - mean_y**2
    covariance = average(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variance_x + variance_y + c2)


def by_hand(image: torch.Tensor, target: torch.Tensor) -> list[float]:
    x, y = image.double().numpy(), target.double().numpy()
    return [float(np.mean([ssim_map(x[b, c], y[b, c]) for c in range(3)])) for b in range(len(x))]


@pytest.mark.parametrize("shape", [(1, 3, 11, 11), (2, 3, 11, 40), (3, 3, 37, 52)])
def test_equals_the_definition_per_image(shape: tuple[int, ...]) -> None:
    image, target = smooth_pair(*shape)
    value = ssim(image, target)
    assert value.dtype == torch.float64 and value.shape == shape[:1]
    np.testing.assert_allclose(value.numpy(), by_hand(image, target), rtol=0, atol=1e-9)


def test_convention_border_is_cut_where_torchmetrics_mirrors() -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    image, target = (batch.double() for batch in smooth_pair(2, 3, 24, 31))
    theirs = structural_similarity_index_measure(image, target, data_range=1.0, reduction="none")
    mirrored = [torch.nn.functional.pad(batch, (5, 5, 5, 5), mode="reflect") for batch in (image, target)]
    torch.testing.assert_close(ssim(*mirrored), theirs, rtol=0, atol=1e-12)
    assert (ssim(image, target) - theirs).abs().min() > 1e-4


def test_bounds() -> None:
    image, target = smooth_pair(1, 3, 20, 20)
    assert ssim(target, target).item() == pytest.approx(1.0, abs=1e-12)
    assert ssim(torch.zeros_like(target), torch.ones_like(target)).item() == pytest.approx(1e-4, rel=1e-3)
    assert 0 < ssim(image, target).item() < 1


def test_is_accurate_on_flat_areas_in_float32() -> None:
    """E[x²] - E[x]² cancels in float32; the result must be that of float64."""
    image, target = torch.full((1, 3, 16, 16), 0.9), torch.full((1, 3, 16, 16), 0.9)
    image[..., ::2] += 1e-4
    np.testing.assert_allclose(ssim(image, target).numpy(), by_hand(image, target), rtol=0, atol=1e-9)


def test_refuses_images_smaller_than_the_window() -> None:
    for height, width in [(10, 40), (40, 10), (1, 1)]:
        with pytest.raises(ShapeError, match=f"{height} x {width}.*at least 11 x 11"):
            ssim(torch.rand(1, 3, height, width), torch.rand(1, 3, height, width))


def test_refuses_integers_and_wrong_shapes() -> None:
    image, target = smooth_pair(2, 3, 16, 16)
    with pytest.raises(DtypeError, match=r"image is torch\.int64"):
        ssim(image.long(), target)
    for wrong in (image[0], image[:, :2], image.permute(0, 2, 3, 1)):
        with pytest.raises(ShapeError, match="B, 3, H, W"):
            ssim(wrong, wrong)
    with pytest.raises(ShapeError, match="equal shapes"):
        ssim(image[:1], target)
