from __future__ import annotations

import json

import pytest
from stand_ins_of_evaluation import evaluation


def test_convention_means_are_means_of_the_images_scores() -> None:
    found = evaluation()
    assert [found.mean(row) for row in found.rows] == [21.0, 24.5, 25.25]
    assert found.rows == ["degraded", "serpent-b", "other_one"] and found.labels == found.rows[1:]


def test_differences_are_to_the_first_model() -> None:
    differences = evaluation().differences
    assert list(differences) == ["degraded", "other_one"]
    other = differences["other_one"]["psnr"]
    assert other.interval.mean == 0.75 and other.won == 1.0
    assert (other.interval.low, other.interval.high) == (0.5, 1.0)
    degraded = differences["degraded"]["psnr"]
    assert degraded.interval.mean == -3.5 and degraded.won == 0.0


def test_lpips_is_a_metric_when_it_was_asked_for_and_smaller_wins() -> None:
    assert [metric.name for metric in evaluation().metrics] == ["psnr", "ssim"]
    found = evaluation(lpips="version 0.1")
    assert [metric.name for metric in found.metrics] == ["psnr", "ssim", "lpips"]
    other = found.differences["other_one"]["lpips"]
    assert other.interval.mean == -0.25 and other.won == 1.0


def test_json_holds_everything() -> None:
    content = json.loads(json.dumps(evaluation().as_json(), allow_nan=False))
    assert content["mean"]["degraded"]["psnr"] == {"mean": 21.0, "low": 20.0, "high": 22.0, "images": 2}
    assert content["difference_to_first"]["other_one"]["psnr"] == {
        "interval": {"mean": 0.75, "low": 0.5, "high": 1.0, "images": 2},
        "won": 1.0,
    }
    assert content["images"][1] == {
        "name": "b/c <1>.png",
        "height": 40,
        "width": 50,
        "content_hash": "11ee",
        "scores": {
            "degraded": {"psnr": 22.0, "ssim": 0.5},
            "serpent-b": {"psnr": 24.0, "ssim": 0.75},
            "other_one": {"psnr": 24.5, "ssim": 0.75},
        },
    }
    assert content["models"][1] == {
        "label": "other_one",
        "card": {"model": "unet-32"},
        "task": "denoise",
        "training_data": "2 images of here",
        "hashes_known": True,
        "trained_on": ["b/c <1>.png"],
    }
    assert content["failed"] == [{"name": "d.png", "reason": "truncated"}] and content["ignored"] == ["e.heic"]
    facts = [content[name] for name in ("folder", "task", "options", "seed", "quantized", "channel", "border", "lpips")]
    assert facts == ["photographs", "deblur", {"noise_sigma": 0.05}, 3, True, "rgb", 0, None]
    assert content["machine"] == {"processor": "a processor"}
    assert content["bootstrap"] == {"resamples": 10_000, "seed": 0, "confidence": 0.95}


@pytest.mark.parametrize(("failed", "ignored"), [(True, False), (False, True)])
def test_complete_means_every_file(failed: bool, ignored: bool) -> None:
    nothing = {"failed": (), "ignored": ()}
    assert evaluation(**nothing).complete
    kept = {name: () for name, there in (("failed", failed), ("ignored", ignored)) if not there}
    assert not evaluation(**kept).complete
