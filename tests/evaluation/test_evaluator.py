from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from serpent_ir import metrics
from serpent_ir.errors import DataError, RangeError, UnknownNameError
from serpent_ir.evaluation import Evaluator, FailedImage, ImageScore, Scores, measure
from serpent_ir.evaluation.evaluator import typical_and_extreme
from serpent_ir.images import Picture, write_image


class Smooth(nn.Module):
    """A stand-in for a model: averages 3 x 3 neighbours."""

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)


class NotFinite(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image * torch.nan


class Black(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image * 0


def test_scores_are_those_of_degraded_and_restored_against_clean(photographs: Path) -> None:
    evaluator = Evaluator("deblur", Smooth(), seed=7, device="cpu")
    evaluation = evaluator.evaluate(photographs)
    assert [image.name for image in evaluation.images] == ["a.png", "below/b.png", "c.png"]
    assert [(image.height, image.width) for image in evaluation.images] == [(24, 37), (33, 16), (11, 40)]
    assert evaluation.failed == ()
    for image in evaluation.images:
        pair = evaluator.read_pair(photographs, image.name)
        restored = Smooth()(pair.degraded[None]).clamp(0, 1)
        for scores, candidate in ((image.input, pair.degraded[None]), (image.output, restored)):
            assert scores.psnr == pytest.approx(metrics.psnr(candidate, pair.clean[None]).item(), abs=1e-9)
            assert scores.ssim == pytest.approx(metrics.ssim(candidate, pair.clean[None]).item(), abs=1e-9)
        assert image.gain == image.output.psnr - image.input.psnr > 0


def test_records_what_is_needed_to_repeat_it(photographs: Path) -> None:
    evaluation = Evaluator(model=Smooth(), options={"noise_sigma": 0.1}, seed=7, quantized=True, device="cpu").evaluate(
        photographs
    )
    assert evaluation.options["noise_sigma"] == 0.1 and evaluation.options["blur_sigma"] == 3.0
    assert (evaluation.task, evaluation.seed, evaluation.quantized) == ("deblur", 7, True)
    assert evaluation.folder == "photographs"
    assert evaluation.model == {"model": "Smooth", "parameters": 0}
    assert evaluation.machine["versions"]["torch"]


def test_an_image_has_the_same_scores_in_any_subset(photographs: Path) -> None:
    evaluator = Evaluator(model=Smooth(), device="cpu")
    everything = evaluator.evaluate(photographs)
    assert evaluator.evaluate(photographs, limit=1).images == everything.images[:1]
    (photographs / "a.png").unlink()
    assert evaluator.evaluate(photographs).images == everything.images[1:]


def test_quantized_input_scores_differ(photographs: Path) -> None:
    scores = [
        Evaluator(model=Smooth(), quantized=quantized, device="cpu").evaluate(photographs, limit=1).images[0].input.psnr
        for quantized in (False, True)
    ]
    assert 0 < abs(scores[0] - scores[1]) < 1


def test_bad_files_are_reported_and_skipped(photographs: Path) -> None:
    whole = (photographs / "a.png").read_bytes()
    (photographs / "d-truncated.png").write_bytes(whole[: len(whole) // 2])
    (photographs / "e-empty.png").touch()
    (photographs / "f-text.png").write_text("not an image")
    write_image(Picture(torch.rand(3, 10, 30)), photographs / "g-small.png")
    seen: list[tuple[int, int, str]] = []
    evaluation = Evaluator(model=Smooth(), device="cpu").evaluate(
        photographs, on_image=lambda done, total, result: seen.append((done, total, result.name))
    )
    assert len(evaluation.images) == 3
    reasons = {failure.name: failure.reason for failure in evaluation.failed}
    assert list(reasons) == ["d-truncated.png", "e-empty.png", "f-text.png", "g-small.png"]
    assert "empty" in reasons["e-empty.png"] and "at least 11 x 11" in reasons["g-small.png"]
    assert [(done, total) for done, total, _ in seen] == [(count, 7) for count in range(1, 8)]
    names = ["a.png", "below/b.png", "c.png", "d-truncated.png", "e-empty.png", "f-text.png", "g-small.png"]
    assert [name for _, _, name in seen] == names


def test_files_that_are_no_images_are_listed(photographs: Path) -> None:
    evaluator = Evaluator(model=Smooth(), device="cpu")
    assert evaluator.evaluate(photographs).complete
    (photographs / "below" / "photo.heic").touch()
    evaluation = evaluator.evaluate(photographs)
    assert evaluation.ignored == ("below/photo.heic",) and len(evaluation.images) == 3
    assert not evaluation.complete


def test_too_little_memory_fails_its_image_only(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure_small(image: Tensor, clean: Tensor) -> Scores:
        if image.shape[1] == 33:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return measure(image, clean)

    monkeypatch.setattr("serpent_ir.evaluation.evaluator.measure", measure_small)
    evaluation = Evaluator(model=Smooth(), device="cpu").evaluate(photographs)
    assert [failure.name for failure in evaluation.failed] == ["below/b.png"]
    assert "not enough memory" in evaluation.failed[0].reason


def test_an_infinite_score_fails_its_image_only(photographs: Path) -> None:
    write_image(Picture(torch.zeros(3, 20, 20)), photographs / "black.png")
    evaluation = Evaluator(model=Black(), device="cpu").evaluate(photographs)
    assert len(evaluation.images) == 3
    assert [failure.name for failure in evaluation.failed] == ["black.png"]
    assert "equals the clean image exactly" in evaluation.failed[0].reason


def test_a_model_that_blows_up_everywhere_is_an_error(photographs: Path) -> None:
    seen: list[ImageScore | FailedImage] = []
    with pytest.raises(DataError, match=r"none of 3 images .* not finite"):
        Evaluator(model=NotFinite(), device="cpu").evaluate(photographs, on_image=lambda *event: seen.append(event[2]))
    assert all(isinstance(result, FailedImage) for result in seen) and len(seen) == 3


def test_refuses_unknown_names_and_empty_folders(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="deblurr"):
        Evaluator("deblurr", Smooth())
    evaluator = Evaluator(model=Smooth(), device="cpu")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no image"):
        evaluator.evaluate(tmp_path / "nothing")
    with pytest.raises(DataError, match="missing"):
        evaluator.evaluate(tmp_path / "missing")
    with pytest.raises(RangeError, match="limit 0"):
        evaluator.evaluate(photographs, limit=0)


def scored(*gains: float) -> tuple[ImageScore, ...]:
    return tuple(
        ImageScore(f"{index}.png", 20, 20, Scores(20.0, 0.5), Scores(20.0 + gain, 0.5))
        for index, gain in enumerate(gains)
    )


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ((1.0,), [("0.png", "gain")]),
        ((2.0, 1.0), [("1.png", "smallest gain"), ("0.png", "largest gain")]),
        ((3.0, 1.0, 2.0), [("1.png", "smallest gain"), ("2.png", "median gain"), ("0.png", "largest gain")]),
        ((0.0, 1.0, 2.0, 3.0, 9.0), [("0.png", "smallest gain"), ("2.png", "median gain"), ("4.png", "largest gain")]),
    ],
)
def test_the_panel_shows_the_extremes_and_the_median(gains: tuple[float, ...], expected: list[tuple[str, str]]) -> None:
    assert [(score.name, remark) for score, remark in typical_and_extreme(scored(*gains))] == expected


def test_panel_rows_hold_the_images_and_their_scores(photographs: Path) -> None:
    write_image(Picture(torch.rand(3, 20, 600)), photographs / "wide.png")
    evaluator = Evaluator(model=Smooth(), device="cpu")
    evaluation = evaluator.evaluate(photographs)
    for row, (score, remark) in zip(
        evaluator.panel_rows(evaluation, photographs), typical_and_extreme(evaluation.images), strict=True
    ):
        assert row.heading == f"{score.name}: {remark}, {score.gain:+.2f} dB"
        (degraded, before), (restored, after), (clean, size) = row.cells
        assert before == f"{score.input.psnr:.2f} dB, SSIM {score.input.ssim:.3f}"
        assert after == f"{score.output.psnr:.2f} dB, SSIM {score.output.ssim:.3f}"
        assert degraded.shape == restored.shape == clean.shape == (3, score.height, min(score.width, 512))
        assert size == ("centre of 600 x 20 pixels" if score.width == 600 else f"{score.width} x {score.height} pixels")
        if score.width < 512:
            assert metrics.psnr(restored[None], clean[None]).item() == pytest.approx(score.output.psnr, abs=1e-4)
