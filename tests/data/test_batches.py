from __future__ import annotations

import pytest
import torch

from serpent_ir.data import BatchKey, CropBatches, Photograph
from serpent_ir.errors import DataError


def photograph(height: int, width: int, shrink: tuple[float, float] = (1.0, 1.0), seed: int = 0) -> Photograph:
    values = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed))
    return Photograph(f"{height}x{width}", values.to(torch.uint8), shrink)


def symmetries(crop: torch.Tensor) -> list[torch.Tensor]:
    turns = [torch.rot90(crop, turn, (1, 2)) for turn in range(4)]
    return turns + [turn.flip(2) for turn in turns]


def places_of(crop: torch.Tensor, pixels: torch.Tensor) -> set[tuple[int, int, int]]:
    """All (top, left, symmetry) at which `crop` is found in `pixels`."""
    side = crop.shape[1]
    return {
        (top, left, turn)
        for top in range(pixels.shape[1] - side + 1)
        for left in range(pixels.shape[2] - side + 1)
        for turn, turned in enumerate(symmetries(pixels[:, top : top + side, left : left + side]))
        if torch.equal(crop, turned)
    }


def test_crops_are_pieces_of_photographs_in_all_places_and_turns() -> None:
    source = photograph(6, 7)
    _, crops = CropBatches([source], seed=3)[BatchKey(0, 5, 400)]
    places = [places_of(crop, source.pixels) for crop in crops]
    assert all(len(found) == 1 for found in places)
    seen = set().union(*places)
    assert {place[:2] for place in seen} == {(top, left) for top in range(2) for left in range(3)}
    assert {turn for _, _, turn in seen} == set(range(8))


def test_batch_is_a_function_of_seed_and_step_alone() -> None:
    photographs = [photograph(40, 50, (1.0, 2.0), seed=1), photograph(33, 70, seed=2)]
    batches = CropBatches(photographs, seed=5)
    key = BatchKey(17, 16, 4)
    later = batches[key][1]
    assert batches[BatchKey(18, 16, 4)][1].shape == (4, 3, 16, 16)
    assert batches[key][0] == 17
    assert torch.equal(batches[key][1], later)
    assert torch.equal(CropBatches(photographs, seed=5)[key][1], later)
    assert not torch.equal(CropBatches(photographs, seed=6)[key][1], later)
    assert not torch.equal(batches[BatchKey(18, 16, 4)][1], later)


def test_processes_that_share_a_batch_cut_its_crops() -> None:
    batches = CropBatches([photograph(40, 50, (1.0, 2.0), seed=1), photograph(33, 70, seed=2)], seed=5)
    whole = batches[BatchKey(3, 16, 6)][1]
    parts = [batches[BatchKey(3, 16, count, first)][1] for first, count in ((0, 1), (1, 2), (3, 3))]
    assert torch.equal(torch.cat(parts), whole)
    assert len({crop.numpy().tobytes() for crop in whole}) == 6


@pytest.mark.parametrize("height,width", [(1, 1), (1, 30), (30, 3), (5, 7)])
def test_small_photographs_are_reflected(height: int, width: int) -> None:
    source = photograph(height, width)
    crop = CropBatches([source], seed=0)[BatchKey(0, 16, 1)][1][0]
    assert crop.shape == (3, 16, 16)
    assert {tuple(color) for color in crop.flatten(1).T.tolist()} <= {
        tuple(color) for color in source.pixels.flatten(1).T.tolist()
    }


def test_reflection_does_not_repeat_the_edge() -> None:
    source = Photograph("ramp", torch.arange(4, dtype=torch.uint8).expand(3, 10, 4))
    crops = CropBatches([source], seed=0)[BatchKey(0, 10, 32)][1]
    expected = [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    lines = {tuple(crop[0, 0].tolist()) for crop in crops} | {tuple(crop[0, :, 0].tolist()) for crop in crops}
    assert tuple(expected) in lines


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    rows = (torch.arange(64) % 2 * 255).to(torch.uint8)
    stripes = Photograph("stripes", rows.view(1, 64, 1).expand(3, 64, 64).contiguous(), shrink=(4.0, 4.0))
    crop = CropBatches([stripes], seed=0)[BatchKey(0, 16, 1)][1].float()
    inner = crop[..., 4:-4, 4:-4]
    assert (inner - 127.5).abs().max() < 6


def test_shrink_is_limited_by_the_photograph() -> None:
    source = photograph(20, 30, shrink=(8.0, 8.0))
    assert CropBatches([source], seed=0)[BatchKey(0, 16, 2)][1].shape == (2, 3, 16, 16)


def test_degraded_versions_are_cut_at_the_same_places() -> None:
    clean = photograph(9, 30, seed=1)
    pair = Photograph("pair", clean.pixels, degraded=255 - clean.pixels)
    step, crops, degraded = CropBatches([pair], seed=0)[BatchKey(4, 12, 20)]
    assert step == 4 and torch.equal(degraded, 255 - crops)
    assert torch.equal(crops, CropBatches([clean], seed=0)[BatchKey(4, 12, 20)][1])


def test_no_photographs_is_an_error() -> None:
    with pytest.raises(DataError):
        CropBatches([], seed=0)
