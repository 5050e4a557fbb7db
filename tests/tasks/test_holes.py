from __future__ import annotations

import numpy as np
import pytest
import torch

from serpent_ir.errors import RangeError
from serpent_ir.tasks import Holes
from serpent_ir.tasks.holes import add_box, add_segment, add_stroke, random_mask


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("size", [(64, 64), (33, 200)])
def test_the_share_asked_for_is_missing(size: tuple[int, int], share: float) -> None:
    for seed in range(6):
        missing = random_mask(*size, share, np.random.default_rng(seed)).mean()
        assert share - 0.01 <= missing <= share + 0.06


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2)])
def test_tiny_images(size: tuple[int, int]) -> None:
    for seed in range(20):
        mask = random_mask(*size, 0.3, np.random.default_rng(seed))
        assert mask.shape == size and not mask.all()
        assert random_mask(*size, 0.0, np.random.default_rng(seed)).sum() == 0


def test_image_is_0_where_the_mask_is_1_and_untouched_elsewhere() -> None:
    image = torch.rand(5, 3, 40, 30) + 0.1
    holed = Holes((0.1, 0.5))(image, torch.Generator().manual_seed(0))
    colours, mask = holed[:, :3], holed[:, 3:]
    assert holed.shape == (5, 4, 40, 30) and holed.dtype == torch.float32
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(colours, image * (1 - mask))
    assert torch.equal(holed, Holes((0.1, 0.5))(image, torch.Generator().manual_seed(0)))
    shares = mask.mean(dim=(1, 2, 3))
    assert shares.unique().numel() == 5 and 0.09 < shares.min() < shares.max() < 0.56


def test_shapes() -> None:
    random = np.random.default_rng(0)
    mask = np.zeros((40, 60), dtype=bool)
    add_box(mask, 200, random)
    rows, columns = mask.any(axis=1).sum(), mask.any(axis=0).sum()
    assert mask.sum() == rows * columns and 160 < mask.sum() < 240
    mask = np.zeros((40, 60), dtype=bool)
    add_segment(mask, np.array([10.0, 10.0]), np.array([10.0, 30.0]), 2.0)
    assert mask[8:13, 10:31].all() and mask[10, 8] and mask[10, 32] and not mask[10, 33] and not mask[7].any()
    assert mask.sum() == 5 * 21 + 2 * 4  # the caps are half discs of radius 2
    masks = np.zeros((40, 100, 100), dtype=bool)
    for mask in masks:
        add_stroke(mask, 500, random)
    covered = masks.sum(axis=(1, 2))
    assert covered.min() > 0 and np.median(covered) > 200 and covered.max() < 500 + 25 * 10 + 80  # one segment more


def test_impossible_shares_are_refused() -> None:
    for share in (-0.1, 1.0, (0.5, 0.2)):
        with pytest.raises(RangeError):
            Holes(share)
