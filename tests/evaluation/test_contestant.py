from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from stand_ins_of_evaluation import Same, Smooth

from serpent_ir.errors import CheckpointError, ShapeError, UnknownNameError
from serpent_ir.evaluation import Evaluator, weights_for
from serpent_ir.evaluation.contestant import labelled
from serpent_ir.evaluation.notes import training_lines, warning_lines
from serpent_ir.images import content_hash, read_image
from serpent_ir.models import create_model, digest_of_hashes, save_model
from serpent_ir.tasks import compose

PROVENANCE = {"recipe": {"data": [{"path": "bsd432"}, {"path": "t91"}]}, "training_images": 523}


def untrained(path: Path, task: str, **provenance: object) -> Path:
    save_model(create_model("unet-32", channels=4), path, task=task, provenance={**PROVENANCE, **provenance})
    return path


def hash_of(path: Path) -> str:
    return content_hash(read_image(path).pixels.mul(255).round().byte())


def test_labels() -> None:
    files = [Path("runs/a/best.safetensors"), "runs/b/best.safetensors", "x/one.pth", "serpent-b", Smooth()]
    assert list(labelled(files)) == ["a/best", "b/best", "one", "serpent-b", "Smooth"]
    assert list(labelled(["x/one.pth", "y/one.pth"])) == ["x/one", "y/one"]
    runs = ["a/x/best.safetensors", "b/x/best.safetensors", "a/y/best.safetensors", "c/z/one.pth"]
    assert list(labelled(runs)) == ["a/x/best", "b/x/best", "y/best", "one"]
    assert list(labelled(["a/x/one.pth", "b/x/one.pth", Path("one.pth").resolve()]))[:2] == ["a/x/one", "b/x/one"]
    assert list(labelled({"mine": Smooth(), "yours": Smooth()})) == ["mine", "yours"]
    assert list(labelled(["x/clean.pth", "y/degraded.safetensors"])) == ["x/clean", "y/degraded"]
    twice = (["serpent-b", "serpent-b"], [Same(), Same()], ["x/one.pth", "x/one.pth"])
    for wrong in ([], *twice, {"degraded": Same()}, {"clean": Same()}):
        with pytest.raises(UnknownNameError):
            labelled(wrong)


def test_all_embedded_weights_for_a_task() -> None:
    assert "deblur-serpent-b" in weights_for("deblur")
    with pytest.raises(UnknownNameError, match="--model"):
        weights_for("motion-deblur")
    assert weights_for("of my own") == weights_for("photo")


def test_weights_for_another_task_are_evaluated_and_said_so(photographs: Path, tmp_path: Path) -> None:
    path = untrained(tmp_path / "own.safetensors", "denoise")
    evaluation = Evaluator("jpeg", [path], device="cpu").evaluate(photographs, limit=1)
    (model,) = evaluation.models
    assert (model.label, model.task, model.training_data) == ("own", "denoise", "523 images of bsd432, t91")
    assert not model.hashes_known and model.trained_on == ()
    (line,) = training_lines(evaluation)
    assert "trained for denoise on 523 images of bsd432, t91; not known whether" in line
    assert warning_lines(evaluation) == []


def test_evaluated_images_among_the_training_images_are_found_by_content(photographs: Path, tmp_path: Path) -> None:
    hashes = [hash_of(photographs / "below/b.png"), "0123456789abcdef"]
    saw = untrained(tmp_path / "saw.safetensors", "jpeg", training_hashes=hashes)
    saw_not = untrained(tmp_path / "saw-not.safetensors", "jpeg", training_hashes=hashes[1:])
    (photographs / "below/b.png").rename(photographs / "renamed.png")
    evaluation = Evaluator("jpeg", [saw, saw_not], device="cpu").evaluate(photographs)
    assert [model.trained_on for model in evaluation.models] == [("renamed.png",), ()]
    (warning,) = warning_lines(evaluation)
    assert warning == "WARNING: saw was trained on 1 of 3 evaluated images: renamed.png"
    assert "among them are evaluated images, 1 of them" in training_lines(evaluation)[0]
    assert "none of the evaluated images is among them" in training_lines(evaluation)[1]
    assert "training_hashes" not in evaluation.models[0].card["provenance"]


def test_long_lists_of_hashes_lie_beside_the_weights(photographs: Path, tmp_path: Path) -> None:
    hashes = [hash_of(photographs / "a.png"), "0123456789abcdef"]
    (tmp_path / "training_images.json").write_text(json.dumps({"training_hashes": hashes}))
    own = untrained(tmp_path / "own.safetensors", "jpeg", training_images_digest=digest_of_hashes(hashes))
    another = untrained(tmp_path / "another.safetensors", "jpeg", training_images_digest=digest_of_hashes(hashes[1:]))
    copied = untrained(tmp_path / "copied.safetensors", "jpeg")
    evaluation = Evaluator("jpeg", [own, another, copied], device="cpu").evaluate(photographs, limit=1)
    known = [(model.hashes_known, model.trained_on) for model in evaluation.models]
    assert known == [(True, ("a.png",)), (False, ()), (False, ())], "a file beside them is theirs by its digest"


def test_damaged_hashes_are_refused(tmp_path: Path) -> None:
    path = untrained(tmp_path / "own.safetensors", "jpeg", training_hashes={"a": 1})
    with pytest.raises(CheckpointError, match="training_hashes"):
        Evaluator("jpeg", [path], device="cpu")
    path = untrained(tmp_path / "other.safetensors", "jpeg", training_images_digest="00")
    for text in ("[1]", "{", '{"training_hashes": "all"}'):
        (tmp_path / "training_images.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"training_images\.json"):
            Evaluator("jpeg", [path], device="cpu")


def test_models_that_cannot_take_the_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "masked.safetensors"
    save_model(create_model("serpent-b", in_channels=4), path, task="inpaint")
    with pytest.raises(ShapeError, match="masked takes images of 4 channels"):
        Evaluator("deblur", [path], device="cpu")


def test_a_module_with_the_mask_on_a_task_of_ones_own(photographs: Path) -> None:
    own = compose("mine", [{"operator": "gaussian_noise", "sigma": 0.02}, {"operator": "holes", "missing": 0.2}])
    masked = create_model("unet-32", channels=4, in_channels=4)
    evaluation = Evaluator(own, {"masked": masked}, device="cpu").evaluate(photographs, limit=1)
    assert evaluation.task == "mine" and evaluation.mean("masked") > evaluation.mean("degraded")


def test_filling_holes_leaves_what_is_known(photographs: Path, tmp_path: Path) -> None:
    """A model with the mask as fourth channel, beside one without: both get the same image."""
    path = tmp_path / "masked.safetensors"
    save_model(create_model("unet-32", channels=4, in_channels=4), path, task="inpaint")
    evaluator = Evaluator("inpaint", [path, Same()], device="cpu")
    for name in ("a.png", "below/b.png"):
        pair = evaluator.read_pair(photographs, name)
        filled, same = (contestant(pair) for contestant in evaluator.contestants)
        known = (pair.degraded[3] == 0).expand(3, -1, -1)
        torch.testing.assert_close(filled[known], pair.clean[known], rtol=0, atol=0)
        torch.testing.assert_close(same, pair.degraded[:3], rtol=0, atol=0)
