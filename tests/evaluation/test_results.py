from __future__ import annotations

import json
import math

import pytest

from serpent_ir.evaluation import Evaluation, FailedImage, ImageScore, Scores


def evaluation() -> Evaluation:
    return Evaluation(
        folder="photographs",
        task="deblur",
        options={"noise_sigma": 0.05},
        model={"model": "serpent-b"},
        seed=3,
        quantized=True,
        machine={"processor": "a processor"},
        images=(
            ImageScore("a.png", 20, 30, Scores(20.0, 0.5), Scores(25.0, 0.75)),
            ImageScore("b/c.png", 40, 50, Scores(22.0, 0.25), Scores(24.0, 0.5)),
        ),
        failed=(FailedImage("d.png", "truncated"),),
        ignored=("e.heic",),
    )


def test_convention_means_are_means_of_the_images_scores() -> None:
    assert evaluation().mean_input == Scores(21.0, 0.375)
    assert evaluation().mean_output == Scores(24.5, 0.625)
    assert [image.gain for image in evaluation().images] == [5.0, 2.0]


def test_json_holds_everything() -> None:
    content = json.loads(json.dumps(evaluation().as_json()))
    assert content["mean"] == {"input": {"psnr": 21.0, "ssim": 0.375}, "output": {"psnr": 24.5, "ssim": 0.625}}
    assert content["images"][1] == {
        "name": "b/c.png",
        "height": 40,
        "width": 50,
        "input": {"psnr": 22.0, "ssim": 0.25},
        "output": {"psnr": 24.0, "ssim": 0.5},
    }
    assert content["failed"] == [{"name": "d.png", "reason": "truncated"}] and content["ignored"] == ["e.heic"]
    assert (content["folder"], content["task"], content["seed"], content["quantized"]) == (
        "photographs",
        "deblur",
        3,
        True,
    )
    assert (content["options"], content["model"]) == ({"noise_sigma": 0.05}, {"model": "serpent-b"})
    assert content["machine"] == {"processor": "a processor"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_know_whether_they_are_finite(value: float) -> None:
    assert Scores(20.0, 0.5).is_finite()
    assert not Scores(value, 0.5).is_finite()
    assert not Scores(20.0, value).is_finite()
