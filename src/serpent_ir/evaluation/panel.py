"""A picture for people: rows of degraded | restored | clean, with what was measured under each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pyvips
import torch
from torch import Tensor

from serpent_ir.images import Picture

MARGIN, COLUMN_GAP, ROW_GAP, LINE = 28, 14, 26, 26
BACKGROUND, BLACK, GRAY = 255, 25, 105
TITLE_SIZE, COLUMN_SIZE, TEXT_SIZE = 16, 13, 11
LONGEST_TEXT = 90
FONT = Path(__file__).parent / "fonts" / "DejaVuSans-subset.ttf"


@dataclass(frozen=True, eq=False)
class PanelRow:
    """heading: a line above the row. cells: for each column an image (3, H, W), clipped here, and the line under it."""

    heading: str
    cells: tuple[tuple[Tensor, str], ...]


def draw_panel(title: str, columns: tuple[str, ...], rows: list[PanelRow]) -> Picture:
    """The rows below each other at the images' own resolution, dark text on white, as an 8-bit picture.

    Text is drawn with a bundled font, so that it looks the same everywhere, machines without any font included.
    """
    widths = []
    for index, column in enumerate(columns):
        images, captions = zip(*(row.cells[index] for row in rows), strict=True)
        widths.append(
            max(*(image.shape[2] for image in images), text_width(column, COLUMN_SIZE), *map(text_width, captions))
        )
    grid_width = sum(widths) + COLUMN_GAP * (len(columns) - 1)
    width = 2 * MARGIN + max(grid_width, text_width(title, TITLE_SIZE), *(text_width(row.heading) for row in rows))
    heights = [max(image.shape[1] for image, _ in row.cells) for row in rows]
    height = 2 * MARGIN + 3 * LINE + sum(heights) + len(rows) * (2 * LINE + ROW_GAP)
    canvas = np.full((height, width, 3), BACKGROUND, dtype=np.uint8)

    write(canvas, title, MARGIN, MARGIN, TITLE_SIZE, BLACK)
    lefts = [MARGIN + sum(widths[:index]) + COLUMN_GAP * index for index in range(len(columns))]
    for left, column_width, column in zip(lefts, widths, columns, strict=True):
        write_centred(canvas, column, left, column_width, MARGIN + 2 * LINE, COLUMN_SIZE, BLACK)
    top = MARGIN + 3 * LINE + ROW_GAP
    for row, row_height in zip(rows, heights, strict=True):
        write(canvas, row.heading, MARGIN, top, TEXT_SIZE, BLACK)
        top += LINE
        for left, column_width, (image, caption) in zip(lefts, widths, row.cells, strict=True):
            paste(canvas, image, left + (column_width - image.shape[2]) // 2, top)
            write_centred(canvas, caption, left, column_width, top + image.shape[1] + 6, TEXT_SIZE, GRAY)
        top += row_height + LINE + ROW_GAP
    return Picture(torch.from_numpy(canvas).permute(2, 0, 1).float().div(255))


def centre(image: Tensor, side: int) -> Tensor:
    """The middle of an image (C, H, W): at most side x side."""
    height, width = image.shape[1:]
    top, left = max(height - side, 0) // 2, max(width - side, 0) // 2
    return image[:, top : top + side, left : left + side]


def paste(canvas: np.ndarray, image: Tensor, left: int, top: int) -> None:
    samples = image.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    canvas[top : top + samples.shape[0], left : left + samples.shape[1]] = samples


def write_centred(canvas: np.ndarray, text: str, left: int, width: int, top: int, size: int, shade: int) -> None:
    write(canvas, text, left + (width - text_width(text, size)) // 2, top, size, shade)


def write(canvas: np.ndarray, text: str, left: int, top: int, size: int, shade: int) -> None:
    """Blend `text` in a gray `shade` into (H, W, 3) uint8; `top` is the top of the line, not of the letters."""
    mask, offset = text_mask(text, size)
    height, width = mask.shape
    area = canvas[top + offset : top + offset + height, left : left + width]
    opacity = mask[..., None].astype(np.float32) / 255
    area[:] = np.rint(area * (1 - opacity) + shade * opacity).astype(np.uint8)


def text_width(text: str, size: int = TEXT_SIZE) -> int:
    """In pixels, as drawn."""
    return text_mask(text, size)[0].shape[1]


def text_mask(text: str, size: int = TEXT_SIZE) -> tuple[np.ndarray, int]:
    """The ink of one line of text as (H, W) uint8, and how far below the top of its line the ink starts, in pixels."""
    if len(text) > LONGEST_TEXT:
        text = f"{text[: LONGEST_TEXT // 2 - 1]}…{text[-LONGEST_TEXT // 2 :]}"
    image = pyvips.Image.text(escape(text), font=f"DejaVu Sans {size}", fontfile=str(FONT), dpi=96)
    return image.numpy().reshape(image.height, image.width), image.yoffset
