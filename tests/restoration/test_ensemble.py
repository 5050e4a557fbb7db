from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from serpent_ir.restoration.ensemble import ORIENTATIONS, ensembled, turned, turned_back

IMAGE = torch.rand(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))


def pooled(image: Tensor) -> Tensor:
    """Does not care how an image lies, bit for bit."""
    return F.max_pool2d(image[:, :3], 3, stride=1, padding=1)


def test_the_orientations_are_the_group_of_the_square() -> None:
    """Eight different ones, each undone; one after another is one of the eight again."""
    square = torch.arange(9.0).reshape(1, 1, 3, 3)
    all_of_them = [turned(square, orientation) for orientation in range(ORIENTATIONS)]
    assert len({tuple(one.flatten().tolist()) for one in all_of_them}) == 8
    assert torch.equal(all_of_them[0], square)
    for orientation, one in enumerate(all_of_them):
        assert torch.equal(turned_back(one, orientation), square)
        assert torch.equal(turned_back(turned(IMAGE, orientation), orientation), IMAGE)
    for first, second in product(range(ORIENTATIONS), repeat=2):
        twice = turned(all_of_them[first], second)
        assert sum(torch.equal(twice, one) for one in all_of_them) == 1


def test_a_quarter_turn_and_a_mirror() -> None:
    image = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert turned(image, 1).tolist() == [[3.0, 6.0], [2.0, 5.0], [1.0, 4.0]]
    assert turned(image, 4).tolist() == [[3.0, 2.0, 1.0], [6.0, 5.0, 4.0]]


def test_a_model_that_does_not_care_gives_its_own_output() -> None:
    masked = torch.cat([IMAGE, (IMAGE[:, :1] > 0.5).float()], dim=1)
    for model in (pooled, lambda image: pooled(image).repeat_interleave(2, -1).repeat_interleave(2, -2)):
        assert torch.equal(ensembled(model, IMAGE), model(IMAGE))
        assert torch.equal(ensembled(model, masked), model(masked))


def test_the_mean_of_a_shift_is_the_formula() -> None:
    """A cyclic shift by one to the right: the mean over the group takes each of the four neighbours twice."""
    mean = ensembled(lambda image: image.roll(1, -1), IMAGE)
    neighbours = [IMAGE.roll(step, axis) for step, axis in product((1, -1), (-1, -2))]
    torch.testing.assert_close(mean, torch.stack(neighbours).mean(0), rtol=0, atol=1e-6)


def test_one_orientation_at_a_time_in_float32() -> None:
    seen: list[tuple[int, ...]] = []

    def half(image: Tensor) -> Tensor:
        seen.append(tuple(image.shape))
        assert image.is_contiguous()
        return image.half()

    mean = ensembled(half, IMAGE)
    assert mean.dtype == torch.float32 and sorted(seen) == 4 * [(2, 3, 5, 8)] + 4 * [(2, 3, 8, 5)]
    assert torch.equal(mean, IMAGE.half().float())


def test_the_output_of_the_model_is_not_written_on() -> None:
    kept = IMAGE.clone()
    ensembled(lambda image: kept if image.shape == kept.shape else image, IMAGE)
    assert torch.equal(kept, IMAGE)
