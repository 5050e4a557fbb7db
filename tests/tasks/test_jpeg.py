from __future__ import annotations

import numpy as np
import pytest
import torch

from serpent_ir.errors import RangeError, ShapeError
from serpent_ir.images import read_image
from serpent_ir.metrics import psnr
from serpent_ir.tasks import Jpeg, quantize


def smooth(count: int = 1, size: int = 48) -> torch.Tensor:
    axis = torch.linspace(0, 6, size)
    waves = torch.stack([torch.sin(axis.view(-1, 1) * k + axis) for k in (1, 2, 3)]) / 2 + 0.5
    return waves.expand(count, -1, -1, -1).clone()


def test_is_what_a_file_of_this_quality_holds(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import pyvips

    image = smooth()
    samples = np.ascontiguousarray(image[0].mul(255).round().permute(1, 2, 0).numpy().astype(np.uint8))
    pyvips.Image.new_from_array(samples, interpretation="srgb").jpegsave(str(tmp_path / "a.jpg"), Q=40)
    assert torch.equal(Jpeg(40)(image)[0], read_image(tmp_path / "a.jpg").pixels)


def test_quality_decides_for_each_image() -> None:
    images = smooth(24) + 0.05 * torch.randn(24, 3, 48, 48)
    scores = [psnr(Jpeg(quality)(images), images).mean() for quality in (10, 30, 90, 100)]
    assert scores == sorted(scores) and scores[0] < scores[-1] - 5
    mixed = Jpeg((10, 90))(images, torch.Generator().manual_seed(0))
    assert torch.equal(mixed, Jpeg((10, 90))(images, torch.Generator().manual_seed(0)))
    spread = psnr(mixed, images)
    assert spread.min() < scores[1] < spread.max()


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 1, 7), (1, 1, 13, 5)])
def test_any_size_clipped_and_rounded(shape: tuple[int, ...]) -> None:
    image = torch.randn(shape)
    compressed = Jpeg(50)(image)
    assert compressed.shape == shape and compressed.dtype == torch.float32
    assert torch.equal(compressed, quantize(compressed))
    flat = torch.full(shape, 0.4)
    assert torch.equal(Jpeg(50)(flat), flat.mul(255).round().div(255))


def test_refused() -> None:
    for quality in (0, 101, (50, 20)):
        with pytest.raises(RangeError):
            Jpeg(quality)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="1 or 3"):
        Jpeg(50)(torch.zeros(1, 4, 8, 8))
