from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serpent_ir import metrics
from serpent_ir.errors import ImageReadError, RangeError, ShapeError
from serpent_ir.evaluation import measure, read_pair
from serpent_ir.images import read_image
from serpent_ir.restoration import Degrader


def test_clean_is_the_file_and_degraded_is_the_task(photographs: Path) -> None:
    degrader = Degrader("deblur", seed=5)
    pair = read_pair(photographs, "below/b.png", degrader, quantized=False)
    picture = read_image(photographs / "below/b.png")
    torch.testing.assert_close(pair.clean, picture.pixels, rtol=0, atol=0)
    expected = degrader.degrade_picture(picture, "below/b.png").pixels
    torch.testing.assert_close(pair.degraded, expected, rtol=0, atol=0)


def test_noise_follows_from_seed_and_name(photographs: Path) -> None:
    def degraded(name: str, seed: int) -> torch.Tensor:
        return read_pair(photographs, name, Degrader("deblur", seed), quantized=False).degraded

    first = degraded("a.png", 0)
    degraded("c.png", 0)
    torch.testing.assert_close(degraded("a.png", 0), first, rtol=0, atol=0)
    assert (degraded("a.png", 1) - first).std() > 0.05
    (photographs / "renamed.png").write_bytes((photographs / "a.png").read_bytes())
    assert (degraded("renamed.png", 0) - first).std() > 0.05


def test_quantized_is_what_a_file_would_hold(photographs: Path) -> None:
    degrader = Degrader("deblur", noise_sigma=0.5)
    raw = read_pair(photographs, "a.png", degrader, quantized=False).degraded
    rounded = read_pair(photographs, "a.png", degrader, quantized=True).degraded
    assert raw.min() < 0 and raw.max() > 1
    torch.testing.assert_close(rounded, raw.clamp(0, 1).mul(255).round().div(255), rtol=0, atol=1e-7)


def test_unreadable_file(photographs: Path) -> None:
    (photographs / "empty.png").touch()
    with pytest.raises(ImageReadError, match="empty"):
        read_pair(photographs, "empty.png", Degrader(), quantized=False)


def test_measure_is_the_metrics_of_one_image() -> None:
    clean = torch.rand(3, 14, 20, generator=torch.Generator().manual_seed(0))
    image = (clean + 0.1).clamp(0, 1)
    scores = measure(image, clean)
    assert scores.psnr == metrics.psnr(image[None], clean[None]).item()
    assert scores.ssim == metrics.ssim(image[None], clean[None]).item()


def test_measure_refuses_scores_that_are_not_finite() -> None:
    clean = torch.rand(3, 14, 20)
    with pytest.raises(RangeError, match="equals the clean image"):
        measure(clean, clean)
    with pytest.raises(RangeError, match="nan"):
        measure(clean * torch.nan, clean)
    with pytest.raises(ShapeError, match="at least 11 x 11"):
        measure(clean[:, :8] * 0.5, clean[:, :8])
