from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from stand_ins_of_evaluation import Black, NotFinite, Same, Smooth
from torch import Tensor, nn

from serpent_ir import metrics
from serpent_ir.errors import DataError, RangeError, ShapeError, UnknownNameError
from serpent_ir.evaluation import Evaluation, Evaluator, FailedImage, ImageScores, Scores, Scoring
from serpent_ir.images import Picture, write_image
from serpent_ir.tasks import Degradation, compose


def evaluator(*models: nn.Module, task: str = "deblur", **settings: object) -> Evaluator:
    return Evaluator(task, models, device="cpu", **settings)  # type: ignore[arg-type]


def evaluate(folder: Path, **settings: object) -> Evaluation:
    return evaluator(Smooth(), **settings).evaluate(folder)


def test_scores_are_those_of_degraded_and_restored_against_clean(photographs: Path) -> None:
    two = evaluator(Smooth(), Same(), seed=7)
    evaluation = two.evaluate(photographs)
    assert [image.name for image in evaluation.images] == ["a.png", "below/b.png", "c.png"]
    assert [(image.height, image.width) for image in evaluation.images] == [(24, 37), (33, 16), (11, 40)]
    assert evaluation.failed == () and evaluation.rows == ["degraded", "Smooth", "Same"]
    for image in evaluation.images:
        pair = two.read_pair(photographs, image.name)
        degraded = pair.degraded[None]
        candidates = {"degraded": degraded, "Smooth": Smooth()(degraded).clamp(0, 1), "Same": degraded.clamp(0, 1)}
        for row, candidate in candidates.items():
            scores = image.scores[row]
            assert scores.psnr == pytest.approx(metrics.psnr(candidate, pair.clean[None]).item(), abs=1e-9)
            assert scores.ssim == pytest.approx(metrics.ssim(candidate, pair.clean[None]).item(), abs=1e-9)
        assert image.content_hash == pair.content_hash


def test_each_image_is_degraded_once_for_all_models(photographs: Path) -> None:
    seen: list[Tensor] = []

    class Watch(Same):
        def forward(self, image: Tensor) -> Tensor:
            seen.append(image.clone())
            return super().forward(image)

    Evaluator("deblur", {"first": Watch(), "second": Watch()}, device="cpu").evaluate(photographs, limit=1)
    assert len(seen) == 2 and torch.equal(*seen)


def test_pictures_of_all_rows_are_handed_out(photographs: Path) -> None:
    shown: list[tuple[ImageScores, dict[str, Tensor]]] = []
    found = evaluator(Smooth()).evaluate(
        photographs, 1, on_pictures=lambda one, images: shown.append((one, dict(images)))
    )
    ((scores, pictures),) = shown
    assert scores == found.images[0] and list(pictures) == ["degraded", "Smooth", "clean"]
    assert Scoring()(pictures["Smooth"], pictures["clean"]) == scores.scores["Smooth"]


def test_records_what_is_needed_to_repeat_it(photographs: Path) -> None:
    scoring = Scoring(channel="y", border=0)
    settings = {"options": {"noise_sigma": 0.1}, "seed": 7, "quantized": True, "scoring": scoring, "device": "cpu"}
    evaluation = Evaluator("deblur", {"mine": Smooth()}, **settings).evaluate(photographs)  # type: ignore[arg-type]
    assert evaluation.options["noise_sigma"] == 0.1 and evaluation.options["blur_sigma"] == 3.0
    assert (evaluation.task, evaluation.seed, evaluation.quantized) == ("deblur", 7, True)
    assert evaluation.folder == "photographs"
    assert [(model.label, model.card) for model in evaluation.models] == [
        ("mine", {"model": "Smooth", "parameters": 0})
    ]
    assert (evaluation.channel, evaluation.border, evaluation.lpips) == ("y", 0, None)
    assert evaluation.machine["versions"]["torch"]


def test_an_image_has_the_same_scores_in_any_subset(photographs: Path) -> None:
    smooth = evaluator(Smooth())
    everything = smooth.evaluate(photographs)
    assert smooth.evaluate(photographs, limit=1).images == everything.images[:1]
    (photographs / "a.png").unlink()
    assert smooth.evaluate(photographs).images == everything.images[1:]


def test_quantized_input_scores_differ(photographs: Path) -> None:
    scores = [
        evaluator(Smooth(), quantized=quantized).evaluate(photographs, limit=1).images[0].scores["degraded"].psnr
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
    evaluation = evaluator(Smooth()).evaluate(
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
    assert evaluate(photographs).complete
    (photographs / "below" / "photo.heic").touch()
    evaluation = evaluate(photographs)
    assert evaluation.ignored == ("below/photo.heic",) and len(evaluation.images) == 3
    assert not evaluation.complete


def test_too_little_memory_fails_its_image_only(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Scoring.__call__

    def score_small(self: Scoring, image: Tensor, clean: Tensor) -> Scores:
        if image.shape[1] == 33:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return usual(self, image, clean)

    monkeypatch.setattr(Scoring, "__call__", score_small)
    evaluation = evaluator(Smooth()).evaluate(photographs)
    assert [failure.name for failure in evaluation.failed] == ["below/b.png"]
    assert "not enough memory" in evaluation.failed[0].reason

    def keep(scores: ImageScores, images: Mapping[str, Tensor]) -> None:
        if scores.name == "a.png":
            raise MemoryError

    evaluation = evaluator(Smooth()).evaluate(photographs, on_pictures=keep)
    assert [failure.name for failure in evaluation.failed] == ["a.png", "below/b.png"] and len(evaluation.images) == 1


def test_an_image_that_is_met_exactly_counts_60_db_in_every_row(photographs: Path) -> None:
    write_image(Picture(torch.zeros(3, 20, 20)), photographs / "black.png")
    evaluation = evaluator(Black(), Smooth()).evaluate(photographs)
    assert len(evaluation.images) == 4 and evaluation.failed == ()
    assert evaluation.values("Black", "psnr")[2] == 60
    assert {row: found["psnr"].images for row, found in evaluation.means.items()} == dict.fromkeys(evaluation.rows, 4)


def test_a_model_that_does_nothing_gains_nothing(photographs: Path) -> None:
    """Though the task leaves some images as they are, and clips none."""
    sometimes = compose("sometimes", [{"operator": "jpeg", "quality": 20, "presence": 0.5}])
    evaluation = Evaluator(sometimes, [Same()], device="cpu", seed=1).evaluate(photographs)
    assert 60 in evaluation.values("degraded", "psnr") and min(evaluation.values("degraded", "psnr")) < 50
    assert evaluation.mean("Same") == evaluation.mean("degraded")
    assert evaluation.differences["degraded"]["psnr"].interval.mean == 0


def test_an_image_counts_for_no_model_when_one_fails_on_it(photographs: Path) -> None:
    class Sometimes(Same):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) if image.shape[-1] != 16 else image * torch.nan

    evaluation = evaluator(Smooth(), Sometimes()).evaluate(photographs)
    assert [image.name for image in evaluation.images] == ["a.png", "c.png"]
    assert [failure.name for failure in evaluation.failed] == ["below/b.png"]
    assert "Sometimes: the model's output is not finite" in evaluation.failed[0].reason


def test_a_model_that_blows_up_everywhere_is_an_error(photographs: Path) -> None:
    seen: list[ImageScores | FailedImage] = []
    with pytest.raises(DataError, match=r"none of 3 images .* not finite"):
        evaluator(NotFinite()).evaluate(photographs, on_image=lambda *event: seen.append(event[2]))
    assert all(isinstance(result, FailedImage) for result in seen) and len(seen) == 3


def test_refuses_unknown_names_and_empty_folders(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="deblurr"):
        evaluator(Smooth(), task="deblurr")
    smooth = evaluator(Smooth())
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no image"):
        smooth.evaluate(tmp_path / "nothing")
    with pytest.raises(DataError, match="missing"):
        smooth.evaluate(tmp_path / "missing")
    for name in ("clean", "degraded"):
        (tmp_path / "nothing" / name).mkdir()
    with pytest.raises(DataError, match=r"pairs are not evaluated.*Name .*nothing/clean\."):
        smooth.evaluate(tmp_path / "nothing")
    with pytest.raises(RangeError, match="limit 0"):
        smooth.evaluate(photographs, limit=0)


@pytest.mark.parametrize("task", ["sr4", "inpaint", "jpeg", "photo"])
def test_every_kind_of_task_is_evaluated_with_any_model(photographs: Path, task: str) -> None:
    evaluation = evaluate(photographs, task=task)
    assert evaluation.task == task and len(evaluation.images) == 3
    assert 5 < evaluation.mean("Smooth") < 60


def test_a_degradation_that_does_nothing(photographs: Path) -> None:
    nothing = Degradation("nothing", {}, ())
    evaluation = Evaluator(nothing, [Smooth()], device="cpu").evaluate(photographs)
    assert evaluation.task == "nothing" and evaluation.mean("degraded") == 60
    assert evaluation.differences["degraded"]["psnr"].won == 1 and evaluation.mean("Smooth") > 20


def test_a_model_that_enlarges_gets_the_small_image(photographs: Path) -> None:
    class Enlarge(nn.Module):
        config = type("Config", (), {"upscale": 4})()

        def forward(self, image: Tensor) -> Tensor:
            return image.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)

    evaluation = evaluator(Enlarge(), task="sr4").evaluate(photographs)
    assert len(evaluation.images) == 3
    with pytest.raises(ShapeError, match="Enlarge enlarges images 4 times"):
        evaluator(Enlarge(), task="sr2")
