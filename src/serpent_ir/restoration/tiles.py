"""Any model on an image of any size: overlapping tiles, blended with a window."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from serpent_ir.models.out_of_core import ImageRows

Span = tuple[int, int]


def run_in_tiles(
    run: Callable[[Tensor], Tensor],
    image: ImageRows,
    write: Callable[[int, Tensor], None],
    tile: int,
    overlap: int,
    multiple: int = 1,
    upscale: int = 1,
    begin: int = 0,
) -> None:
    """Put an image through `run`, tile by tile, and hand on the rows of the result from top to bottom.

    run: (1, C, h, w) to (1, D, upscale h, upscale w). write: is given the number of the first row, and rows
    (D, n, upscale W). tile: height and width; the last ones may be smaller. overlap: pixels that neighbours share at
    least, at most half a tile. multiple: tiles begin at multiples of it, so that a model's patches lie where those of
    the whole image do. begin: rows
    of the result above this one are not needed; the tiles that contribute to none that is are left out.
    """
    columns = spans(image.width, tile, overlap, multiple)
    across = [window(span, columns, upscale) for span in columns]
    rows = spans(image.height, tile, overlap, multiple)
    rest: Tensor | None = None  # what the strip above adds to this one
    for i, (top, bottom) in enumerate(rows):
        following = rows[i + 1][0] if i + 1 < len(rows) else bottom
        if bottom * upscale <= begin:
            continue
        strip = image.read(top, bottom).unsqueeze(0)
        result: Tensor | None = None
        for (left, right), weights in zip(columns, across, strict=True):
            piece = run(strip[..., left:right])[0]
            if result is None:
                result = piece.new_zeros(piece.shape[0], (bottom - top) * upscale, image.width * upscale)
            result[..., left * upscale : right * upscale] += piece * weights.to(piece)
        assert result is not None
        result *= window((top, bottom), rows, upscale).to(result)[:, None]
        if rest is not None:
            result[:, : rest.shape[1]] += rest
        ready = (following - top) * upscale
        if following * upscale > begin:
            skipped = max(begin - top * upscale, 0)
            write(top * upscale + skipped, result[:, skipped:ready])
        rest = result[:, ready:].clone()


def spans(size: int, tile: int, overlap: int, multiple: int = 1) -> list[Span]:
    """Where tiles begin and end along one side of an image.

    No pixel lies in more than two: tiles that are too small for grid and overlap begin on a finer grid.
    """
    while multiple > 1 and 2 * ((tile - overlap) // multiple * multiple) < tile:
        multiple //= 2
    step = (tile - overlap) // multiple * multiple
    found = [(0, min(tile, size))]
    while found[-1][1] < size:
        start = found[-1][0] + step
        found.append((start, min(start + tile, size)))
    return found


def window(span: Span, all_spans: list[Span], upscale: int = 1) -> Tensor:
    """The weights of a tile along one side, float32; those of all tiles add up to 1 for each pixel.

    Over an overlap they rise as a squared sine does, within its middle half: the outer quarters, where a model sees the
    edge of a tile instead of the image, weigh nothing.
    """
    start, end = span
    weights = torch.ones((end - start) * upscale)
    i = all_spans.index(span)
    if i:
        rise = ramp((all_spans[i - 1][1] - start) * upscale)
        weights[: len(rise)] *= rise
    if i + 1 < len(all_spans):
        fall = 1 - ramp((end - all_spans[i + 1][0]) * upscale)
        weights[len(weights) - len(fall) :] *= fall
    return weights


def ramp(length: int) -> Tensor:
    """From 0 to 1, (length,)."""
    position = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    return torch.sin(((2 * position - 0.5).clamp(0, 1)) * torch.pi / 2).square().float()
