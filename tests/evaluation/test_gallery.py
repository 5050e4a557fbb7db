from __future__ import annotations

import pytest
import torch

from serpent_ir.errors import RangeError
from serpent_ir.evaluation import Gallery, ImageScores, Scores
from serpent_ir.evaluation.gallery import Box, most_different


def shown(gallery: Gallery, differences: list[float]) -> list[str]:
    pictures = {row: torch.rand(3, 12, 15) for row in ("degraded", "a", "b", "clean")}
    for index, difference in enumerate(differences):
        values = {"degraded": Scores(20.0, 0.5), "a": Scores(25.0 + difference, 0.5), "b": Scores(25.0, 0.5)}
        gallery.add(ImageScores(f"{index}.png", 12, 15, "", values), pictures)
    return [exhibit.scores.name for exhibit in gallery.exhibits]


def test_keeps_both_ends_of_the_difference_in_order() -> None:
    differences = [0.3, -1.0, 0.0, 2.0, -0.5, 0.1, 1.0]
    assert shown(Gallery(4), differences) == ["3.png", "6.png", "4.png", "1.png"]
    assert shown(Gallery(48), differences) == ["3.png", "6.png", "0.png", "5.png", "2.png", "4.png", "1.png"]
    assert shown(Gallery(0), differences) == []
    for limit in (-2, 3):
        with pytest.raises(RangeError, match="even"):
            Gallery(limit)


def test_one_model_is_compared_with_its_input() -> None:
    gallery = Gallery(2)
    scores = {"degraded": Scores(20.0, 0.5), "a": Scores(23.5, 0.5)}
    pictures = {row: torch.rand(3, 300, 20) for row in ("degraded", "a", "clean")}
    gallery.add(ImageScores("one.png", 300, 20, "", scores), pictures)
    (exhibit,) = gallery.exhibits
    assert exhibit.difference == 3.5
    assert {image.shape for image in exhibit.crops.values()} == {(3, 128, 20)}
    torch.testing.assert_close(
        exhibit.crops["clean"], pictures["clean"][:, exhibit.box.top : exhibit.box.top + 128], rtol=0, atol=0
    )


def test_the_crop_is_where_they_differ_most() -> None:
    first = torch.rand(3, 200, 260)
    second = first.clone()
    second[:, 150:170, 30:50] += 0.5
    second[:, 10, 250] -= 0.5
    box = most_different([first, second])
    assert (box.height, box.width) == (128, 128)
    assert box.top <= 150 and box.top + 128 >= 170 and box.left <= 30 and box.left + 128 >= 50
    assert most_different([first[:, :5, :7]] * 2) == Box(0, 0, 5, 7)


def test_whole_images_are_scaled_down_and_clipped() -> None:
    gallery = Gallery(2)
    pictures = {row: torch.full((3, 500, 1000), 2.0) for row in ("degraded", "a", "clean")}
    scores = {"degraded": Scores(60.0, 1.0), "a": Scores(60.0, 1.0)}
    gallery.add(ImageScores("equal.png", 500, 1000, "", scores), pictures)
    (exhibit,) = gallery.exhibits
    assert exhibit.difference == 0.0
    assert exhibit.wholes["a"].shape == (3, 192, 384)
    torch.testing.assert_close(exhibit.wholes["a"], torch.ones(3, 192, 384))
    assert exhibit.crops["a"].max() == 1
