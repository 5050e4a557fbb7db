from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from serpent_ir.restoration.rows import EnlargedRows, TensorRows
from serpent_ir.restoration.tiles import run_in_tiles, spans, window
from serpent_ir.tasks import enlarge


def tiled(image: Tensor, run: object, tile: int, overlap: int, multiple: int = 1, upscale: int = 1) -> Tensor:
    result = torch.full((3, image.shape[1] * upscale, image.shape[2] * upscale), torch.nan)
    rows: list[int] = []

    def write(first: int, part: Tensor) -> None:
        rows.append(first)
        result[:, first : first + part.shape[1]] = part

    run_in_tiles(run, TensorRows(image), write, tile, overlap, multiple, upscale)  # type: ignore[arg-type]
    assert rows == sorted(rows)
    return result


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 40), (63, 5), (90, 71)])
@pytest.mark.parametrize(
    ("tile", "overlap", "multiple"), [(16, 8, 1), (16, 5, 4), (32, 0, 8), (40, 16, 8), (62, 31, 16)]
)
def test_the_identity_is_kept(size: tuple[int, int], tile: int, overlap: int, multiple: int) -> None:
    image = torch.rand(3, *size)
    torch.testing.assert_close(tiled(image, lambda x: x, tile, overlap, multiple), image, rtol=0, atol=1e-6)


def test_a_local_filter_shows_no_seams() -> None:
    """A model that sees no further than a quarter of the overlap gives what it gives for the whole image."""
    image = torch.rand(3, 100, 75)
    kernel = torch.rand(3, 1, 9, 9)

    def run(x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (4, 4, 4, 4)), kernel, groups=3)

    torch.testing.assert_close(tiled(image, run, 40, 16), run(image[None])[0], rtol=1e-5, atol=1e-5)
    assert (tiled(image, run, 40, 4) - run(image[None])[0]).abs().max() > 0.1  # an overlap that is too small


def test_models_that_enlarge() -> None:
    image = torch.rand(3, 37, 50)

    def run(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    torch.testing.assert_close(tiled(image, run, 20, 8, upscale=2), run(image[None])[0], rtol=0, atol=1e-6)


def test_tiles_begin_where_the_grid_of_the_model_does() -> None:
    for size in (64, 65, 200, 1000):
        found = spans(size, 48, 10, 8)
        assert found[0][0] == 0 and found[-1][1] == size
        assert all(start % 8 == 0 and end - start <= 48 for start, end in found)
        assert all(before[1] - after[0] >= 10 for before, after in pairwise(found))


def test_small_tiles_keep_their_overlap() -> None:
    found = spans(200, 64, 16, 64)
    assert all(before[1] - after[0] >= 16 for before, after in pairwise(found))


def test_windows_add_up_to_one_and_ignore_the_edges_of_tiles() -> None:
    all_spans = spans(100, 40, 16)
    total = torch.zeros(100)
    for span in all_spans:
        weights = window(span, all_spans)
        total[span[0] : span[1]] += weights
        if span[0]:
            assert bool((weights[:4] == 0).all())
    torch.testing.assert_close(total, torch.ones(100))


@pytest.mark.parametrize("begin", [0, 1, 30, 52, 99])
def test_rows_that_are_there_already_are_left_out(begin: int) -> None:
    image, ran, rows = torch.rand(3, 100, 20), [], []

    def run(x: Tensor) -> Tensor:
        ran.append(x.shape[2])
        return x

    run_in_tiles(run, TensorRows(image), lambda first, part: rows.append((first, part)), 32, 8, begin=begin)
    assert rows[0][0] == begin
    torch.testing.assert_close(torch.cat([part for _, part in rows], dim=1), image[:, begin:], rtol=0, atol=1e-6)
    assert len(ran) == {0: 4, 1: 4, 30: 4, 52: 3, 99: 1}[begin]


@pytest.mark.parametrize("factor", [2, 8])
def test_an_image_is_enlarged_row_by_row_as_at_once(factor: int) -> None:
    image = torch.rand(3, 13, 7)
    whole, rows = enlarge(image[None], factor)[0], EnlargedRows(TensorRows(image), factor)
    for first, end in (
        (0, 1),
        (0, 13 * factor),
        (5, 9),
        (4 * factor + 3, 11 * factor + 1),
        (13 * factor - 1, 13 * factor),
    ):
        torch.testing.assert_close(rows.read(first, end), whole[:, first:end], rtol=0, atol=1e-6)
