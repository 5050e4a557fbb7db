from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from serpent_ir.evaluation import PanelRow, draw_panel
from serpent_ir.evaluation.panel import centre, text_mask, text_width


def find(canvas: Tensor, image: Tensor) -> list[tuple[int, int]]:
    """Positions (top, left) at which the image stands in the canvas, to the sample."""
    height, width = image.shape[1:]
    corners = (canvas[:, : 1 - height or None, : 1 - width or None] - image[:, :1, :1]).abs().amax(dim=0) < 1 / 512
    places = [(int(top), int(left)) for top, left in corners.nonzero()]
    return [
        (top, left)
        for top, left in places
        if (canvas[:, top : top + height, left : left + width] - image).abs().max() < 1 / 512
    ]


def images(count: int, height: int, width: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, height, width, generator=generator) for _ in range(count)]


def test_every_image_stands_unscaled_in_its_row_and_column() -> None:
    wide, tall = images(3, 9, 21, seed=0), images(3, 20, 8, seed=1)
    rows = [
        PanelRow(f"row {index}", tuple((image, f"{column} dB") for column, image in enumerate(row)))
        for index, row in enumerate((wide, tall))
    ]
    picture = draw_panel("title", ("degraded", "restored", "clean"), rows)
    assert picture.bit_depth == 8
    places = [[find(picture.pixels, image.mul(255).round().div(255)) for image in row] for row in (wide, tall)]
    assert all(len(place) == 1 for row in places for place in row)
    tops = [[place[0][0] for place in row] for row in places]
    centres = [
        [place[0][1] + row_images[0].shape[2] / 2 for place in row]
        for row, row_images in zip(places, (wide, tall), strict=True)
    ]
    assert len(set(tops[0])) == 1 and len(set(tops[1])) == 1 and tops[1][0] > tops[0][0] + 9
    assert centres[0] == sorted(centres[0])
    np.testing.assert_allclose(centres[0], centres[1], atol=1)


def test_values_outside_the_range_are_clipped() -> None:
    image = torch.full((3, 16, 16), -3.0)
    image[0] = 4.0
    picture = draw_panel("title", ("only",), [PanelRow("row", ((image, "caption"),))])
    assert find(picture.pixels, image.clamp(0, 1))
    assert picture.pixels.min() >= 0 and picture.pixels.max() <= 1


def test_text_is_drawn_above_and_below_and_stays_inside() -> None:
    image = torch.full((3, 10, 10), 0.6)
    picture = draw_panel(
        "a title much wider than the image below it", ("c",), [PanelRow("h" * 300, ((image, "x" * 300),))]
    )
    ink = (picture.pixels < 0.5).any(dim=0)
    (top, _), *_ = find(picture.pixels, image)
    assert ink[:top].any() and ink[top + 10 :].any()
    border = torch.cat([ink[:5].flatten(), ink[-5:].flatten(), ink[:, :5].flatten(), ink[:, -5:].flatten()])
    assert not border.any()


@pytest.mark.parametrize("text", ["degraded", "23.46 dB, SSIM 0.512", "a < b & c > d", "Ünï → 1 x 2", "…", "\\x1b[31m"])
def test_text_has_ink(text: str) -> None:
    mask, offset = text_mask(text)
    assert mask.dtype == np.uint8 and mask.max() > 200 and offset >= 0


def test_letters_are_letters_and_not_boxes() -> None:
    masks = {text_mask(letter)[0].tobytes() for letter in "abcdefghijklmnopqrstuvwxyz0123456789→"}
    assert len(masks) == 37
    assert text_width("iii") < text_width("mmm")


def test_long_text_is_shortened_in_the_middle() -> None:
    text = "start" + "-" * 500 + "end"
    assert text_width(text) == text_width(f"{text[:44]}…{text[-45:]}")


def test_centre() -> None:
    image = torch.arange(3 * 7 * 5).view(3, 7, 5)
    torch.testing.assert_close(centre(image, 3), image[:, 2:5, 1:4])
    torch.testing.assert_close(centre(image, 5), image[:, 1:6])
    torch.testing.assert_close(centre(image, 9), image)
