from __future__ import annotations

import csv
import dataclasses
import json
import logging
import os
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from serpent_ir.data import PhotographSource, generated_photographs
from serpent_ir.errors import DeviceError, RecipeError, TrainingError, UnknownNameError
from serpent_ir.metrics import psnr
from serpent_ir.models import create_model, load_model, read_card
from serpent_ir.tasks import Degradation
from serpent_ir.training import Recipe, train
from serpent_ir.training.clock import RunClock
from serpent_ir.training.initial_model import initial_model, task_of
from serpent_ir.training.restoration_module import RestorationModule
from serpent_ir.training.run_folder import RunFolder, changed_fields
from serpent_ir.training.validation import Validation, psnr_values, unrestored

RecipeMaker = Callable[..., Recipe]


def rows_of(run: str) -> list[dict[str, str]]:
    with (Path(run) / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_weights_metrics_recipe_and_environment(tiny_recipe: RecipeMaker) -> None:
    recipe = tiny_recipe()
    result = train(recipe)
    assert result.finished and result.step == 8 and result.interrupted_by is None
    assert result.weights == Path(recipe.run) / "model.safetensors"

    card = read_card(result.weights)
    assert card.model == "serpent-b" and card.task == "deblur" and "16" in card.dtype
    assert card.provenance["steps"] == 8 and card.provenance["training_images"] == 4
    assert card.provenance["val_psnr"] == result.val_psnr
    assert card.provenance["recipe"]["lr"] == recipe.lr and "run" not in card.provenance["recipe"]

    rows = rows_of(recipe.run)
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8]
    assert [int(row["crop"]) for row in rows] == [16, 16, 24, 24]
    assert [bool(row["val_psnr"]) for row in rows] == [False, True, False, True]
    assert all(0 < float(row["loss"]) < 2 for row in rows)
    assert json.loads((Path(recipe.run) / "environment.json").read_text())["threads"] == 1
    assert {path.name for path in Path(recipe.run).iterdir()} - {"changes.patch"} == {
        ".train.lock", "best.safetensors", "environment.json", "last.ckpt", "metrics.csv", "model.safetensors",
        "previous.ckpt", "recipe.yaml", "tensorboard", "training_images.json",
    }  # fmt: skip

    checkpoint = torch.load(Path(recipe.run) / "last.ckpt", weights_only=True)["state_dict"]
    restored = load_model(result.weights).state_dict()
    for name, tensor in restored.items():
        assert torch.equal(tensor, checkpoint[f"average.module.{name}"].half().float()), name
        assert not torch.equal(checkpoint[f"average.module.{name}"], checkpoint[f"model.{name}"]), name


def test_training_lowers_the_loss(tiny_recipe: RecipeMaker) -> None:
    recipe = tiny_recipe(steps=60, lr=5e-3, log_every=20, validate_every=60, checkpoint_every=60)
    train(recipe)
    losses = [float(row["loss"]) for row in rows_of(recipe.run)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_complete_run_is_not_trained_again(tiny_recipe: RecipeMaker, caplog: pytest.LogCaptureFixture) -> None:
    recipe = tiny_recipe()
    first = train(recipe)
    assert first.weights is not None
    before = load_file(first.weights)
    first.weights.unlink()
    with caplog.at_level(logging.INFO):
        again = train(recipe)
    assert "already complete" in caplog.text
    assert dataclasses.replace(again, seconds=first.seconds) == first
    assert again.weights is not None
    after = load_file(again.weights)
    assert all(torch.equal(before[name], after[name]) for name in before)
    card = read_card(again.weights)
    assert card.provenance["val_input_psnr"] is not None
    written = {path: path.stat().st_mtime_ns for path in Path(recipe.run).iterdir()}
    assert train(recipe) == again
    assert {path: path.stat().st_mtime_ns for path in Path(recipe.run).iterdir()} == written


def test_another_recipe_does_not_continue_a_run_unasked(tiny_recipe: RecipeMaker) -> None:
    train(tiny_recipe())
    with pytest.raises(RecipeError, match="differs in lr, steps"):
        train(tiny_recipe(lr=1e-4, steps=10))
    continued = train(tiny_recipe(lr=1e-4, steps=10, resume="anyway"))
    assert continued.step == 10 and [row["step"] for row in rows_of(tiny_recipe().run)][-1] == "10"
    afresh = train(tiny_recipe(steps=2, resume="never"))
    assert afresh.step == 2 and [row["step"] for row in rows_of(tiny_recipe().run)] == ["2"]


def test_starting_afresh_removes_the_old_run_before_it_writes_anything(
    tiny_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at once, a run begun afresh leaves nothing that a later session could take for its own."""
    train(tiny_recipe())
    run = Path(tiny_recipe().run)
    for name in (".last.ckpt.123", ".serpent-0123456789abcdef.part", "notes.txt"):
        (run / name).touch()

    def killed(path: Path, text: str) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("serpent_ir.training.run.write_atomically", killed)
        with pytest.raises(SystemExit):
            train(tiny_recipe(lr=1e-4, resume="never"))
    assert sorted(os.listdir(run)) == [".train.lock", "notes.txt"]
    assert train(tiny_recipe(lr=1e-4, max_time="0.001")).step == 1


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["recipe.yaml", "model.safetensors", "environment.json"])
def test_files_that_no_run_has_written_are_not_replaced_unasked(tiny_recipe: RecipeMaker, name: str) -> None:
    run = Path(tiny_recipe().run)
    run.mkdir()
    (run / name).write_text("[1, 2]")
    with pytest.raises(RecipeError, match=f"holds no run, and {name}, which a run would replace.*--resume never"):
        train(tiny_recipe())
    assert (run / name).read_text() == "[1, 2]"
    assert train(tiny_recipe(steps=1, resume="never")).finished


def test_a_session_that_was_killed_before_its_first_checkpoint_is_begun_again(
    tiny_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("serpent_ir.training.run.fit", killed)
        train(tiny_recipe(steps=1))
    assert {"recipe.yaml", "environment.json"} <= {*os.listdir(tiny_recipe().run)}
    assert train(tiny_recipe(steps=1)).finished


def test_only_one_process_trains_in_a_folder(tiny_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serpent_ir.training.run_folder.PATIENCE", 0.0)
    with RunFolder(Path(tiny_recipe().run)).sole_use(), pytest.raises(TrainingError, match="another process trains in"):
        train(tiny_recipe())
    assert os.listdir(tiny_recipe().run) == [".train.lock"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_run_that_cannot_start_leaves_the_old_one_alone(tiny_recipe: RecipeMaker) -> None:
    train(tiny_recipe())
    before = contents(Path(tiny_recipe().run))
    with pytest.raises(DeviceError):
        train(tiny_recipe(resume="never", device="cuda", lr=1e-4))
    assert contents(Path(tiny_recipe().run)) == before


def test_leftovers_of_a_killed_session_are_removed_on_resuming(tiny_recipe: RecipeMaker) -> None:
    stopped = train(tiny_recipe(max_time="0.001"))
    leftover = Path(tiny_recipe().run) / ".serpent-0123456789abcdef.part"
    leftover.touch()
    assert train(tiny_recipe(max_time="0.001")).step == stopped.step + 1
    assert not leftover.exists()


def test_the_best_weights_are_written_before_the_checkpoint_that_knows_of_them(
    tiny_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise ValueError("killed")

    monkeypatch.setattr("serpent_ir.training.checkpoints.CheckpointFiles.save_checkpoint", killed)
    with pytest.raises(ValueError, match="killed"):
        train(tiny_recipe(validate_every=4, checkpoint_every=4))
    assert read_card(Path(tiny_recipe().run) / "best.safetensors").provenance["steps"] == 4


def test_the_last_measurement_can_be_the_best(tiny_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([19.0, 20.0, 21.0])  # the first is that of the degraded images
    monkeypatch.setattr("serpent_ir.training.validation.Validation.mean_psnr", lambda *_: next(values))
    result = train(tiny_recipe(validate_every=5))
    assert result.val_psnr == 21.0
    provenance = read_card(Path(tiny_recipe().run) / "best.safetensors").provenance
    assert (provenance["steps"], provenance["val_psnr"]) == (8, 21.0)


def test_ctrl_c_in_the_middle_of_a_step_is_a_keyboard_interrupt(
    tiny_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(*_: object) -> float:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not interrupted")

    monkeypatch.setattr("serpent_ir.training.restoration_module.learning_rate", twice)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe())
    assert signal.getsignal(signal.SIGINT) == handler


def test_a_recipe_of_an_earlier_version_without_a_newer_field_is_continued(tiny_recipe: RecipeMaker) -> None:
    stopped = train(tiny_recipe(max_time="0.001"))
    path = Path(tiny_recipe().run) / "recipe.yaml"
    older = {name: value for name, value in yaml.safe_load(path.read_text()).items() if name != "bad_steps"}
    path.write_text(yaml.safe_dump(older))
    assert train(tiny_recipe(max_time="0.001")).step == stopped.step + 1
    with pytest.raises(RecipeError, match="bad_steps"):
        path.write_text(yaml.safe_dump(older))
        train(tiny_recipe(bad_steps=4))


def test_fields_that_do_not_change_the_result_may_differ(tiny_recipe: RecipeMaker) -> None:
    stopped = train(tiny_recipe(max_time="0.001"))
    assert not stopped.finished and stopped.step == 1 and stopped.weights is None
    assert train(tiny_recipe(log_every=1, checkpoint_every=5)).finished


@pytest.mark.parametrize("noted", [True, False])
def test_the_best_on_other_validation_photographs_is_forgotten(tiny_recipe: RecipeMaker, noted: bool) -> None:
    """Unless the checkpoint is of an earlier version, which did not note them."""
    clock = RunClock(tiny_recipe())
    images = generated_photographs(2, 0)
    before, same, other = (Validation(some, 2, clock) for some in (images, images, images[::-1]))
    values = {"last": 20.0, "last_step": 4, "best": 21.0, "best_step": 2}
    vars(before).update(values)
    state = before.state_dict()
    if not noted:
        del state["photographs"]
    same.load_state_dict(state)
    other.load_state_dict(state)
    assert values.items() <= vars(same).items()
    assert dict.fromkeys(values).items() <= vars(other).items() if noted else values.items() <= vars(other).items()


def test_validation_photographs_count_where_they_decide_what_is_trained_on(tiny_recipe: RecipeMaker) -> None:
    folder = RunFolder(Path(tiny_recipe().run))
    folder.path.mkdir()
    some, others = [PhotographSource("a")], [PhotographSource("b")]
    folder.recipe.write_text(yaml.safe_dump(tiny_recipe(val=some).as_dict()))
    assert changed_fields(folder, tiny_recipe(val=others)) == []
    assert changed_fields(folder, tiny_recipe()) == ["val"]
    folder.recipe.write_text(yaml.safe_dump(tiny_recipe(data=some, generated_images=0).as_dict()))
    assert changed_fields(folder, tiny_recipe(data=some, generated_images=0, val=others)) == []


def test_a_folder_of_photographs_may_be_written_in_any_way(
    tiny_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.recipe.write_text(yaml.safe_dump(tiny_recipe(data=[PhotographSource("a")]).as_dict()))
    for path, changed in (("a/", []), (str(tmp_path / "a"), []), ("run/../a", []), ("b", ["data"])):
        assert changed_fields(folder, tiny_recipe(data=[PhotographSource(path)])) == changed


def test_time_budget_ends_the_run_with_its_schedule_complete(tiny_recipe: RecipeMaker) -> None:
    recipe = tiny_recipe(steps=100_000, time_budget="1.5", log_every=1, validate_every=100_000)
    result = train(recipe)
    assert result.finished and 1.5 <= result.seconds < 10
    last = rows_of(recipe.run)[-1]
    assert int(last["crop"]) == 24
    assert float(last["lr"]) < 0.2 * recipe.lr


def test_reduced_precision_keeps_float32_weights(tiny_recipe: RecipeMaker) -> None:
    recipe = tiny_recipe(precision="bf16-mixed", log_every=1)
    assert train(recipe).finished
    assert all(0 < float(row["loss"]) < 2 for row in rows_of(recipe.run))
    state = torch.load(Path(recipe.run) / "last.ckpt", weights_only=True)["state_dict"]
    assert {tensor.dtype for name, tensor in state.items() if name.startswith("model.")} == {torch.float32}


def test_start_from_a_weights_file(tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    first = train(tiny_recipe(run=str(tmp_path / "first")))
    assert first.weights is not None
    recipe = tiny_recipe(run=str(tmp_path / "second"), init_from=str(first.weights), steps=1, lr=1e-9)
    second = train(recipe)
    assert second.weights is not None
    before, after = load_file(first.weights), load_file(second.weights)
    assert all(torch.allclose(before[name].float(), after[name].float(), atol=1e-6) for name in before)
    other = {**recipe.model_options, "directions": 2}
    with pytest.raises(RecipeError, match="init_from"):
        train(tiny_recipe(run=str(tmp_path / "third"), init_from=str(first.weights), model_options=other))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("unet-32", {"channels": 4, "poolings": 2}),
        ("swinir-b", {"embed_channels": 8, "depths": [2], "heads": [2]}),
        ("restormer", {"dim": 8, "blocks": [1, 1, 1, 1], "refinement_blocks": 1}),
    ],
)
def test_every_kind_of_model_is_trained(tiny_recipe: RecipeMaker, model: str, options: dict[str, Any]) -> None:
    summary = train(tiny_recipe(model=model, model_options=options, steps=2, validate_every=2))
    assert summary.finished and summary.weights is not None
    assert read_card(summary.weights).model == model


def test_a_model_that_enlarges_cannot_be_trained(tiny_recipe: RecipeMaker) -> None:
    small = {"embed_channels": 4, "depths": [1], "heads": [1]}
    with pytest.raises(RecipeError, match="field model: swinir-sr enlarges images; expected a model that keeps"):
        train(tiny_recipe(model="swinir-sr", model_options=small))


def test_number_of_workers_changes_nothing(tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    results = [train(tiny_recipe(run=str(tmp_path / str(workers)), workers=workers)) for workers in (0, 1)]
    alone, shared = (load_file(result.weights) for result in results if result.weights)
    assert all(torch.equal(alone[name], shared[name]) for name in alone)


def test_own_operators_make_the_task(tiny_recipe: RecipeMaker) -> None:
    operators = [{"operator": "gaussian_blur", "sigma": [0.5, 2.0]}, {"operator": "jpeg", "quality": 50}]
    result = train(tiny_recipe(task="mine", operators=operators, steps=1))
    assert result.weights is not None
    card = read_card(result.weights)
    assert card.task == "mine" and card.provenance["recipe"]["operators"] == operators
    with pytest.raises(UnknownNameError, match="gaussian_blot"):
        train(tiny_recipe(task="mine", operators=[{"operator": "gaussian_blot"}]))


def test_a_model_takes_the_channels_that_the_task_gives(tiny_recipe: RecipeMaker) -> None:
    result = train(tiny_recipe(task="inpaint", steps=1))
    assert result.weights is not None and load_model(result.weights).config.in_channels == 4
    with pytest.raises(RecipeError, match="in_channels is 3; expected the 4"):
        train(tiny_recipe(task="inpaint", resume="never", model_options={"in_channels": 3}))


def test_the_degradation_of_a_crop_does_not_depend_on_its_share_of_the_batch(tiny_recipe: RecipeMaker) -> None:
    recipe = tiny_recipe(quantized_fraction=0.5)
    task = task_of(recipe)
    module = RestorationModule(recipe, initial_model(recipe, task), task, RunClock(recipe))
    crops = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    whole = module.on_after_batch_transfer((5, crops), 0)[1]
    halves = []
    for rank in range(2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RestorationModule, "global_rank", rank)
            halves.append(module.on_after_batch_transfer((5, crops[2 * rank : 2 * rank + 2]), 0)[1])
    assert torch.equal(torch.cat(halves), whole)
    assert not torch.equal(module.on_after_batch_transfer((6, crops), 0)[1], whole)
    alike = module.on_after_batch_transfer((5, crops[:1].expand(4, -1, -1, -1)), 0)[1]
    assert not torch.equal(alike[0], alike[1])


def test_unknown_names_are_refused_before_anything_is_made(tiny_recipe: RecipeMaker) -> None:
    with pytest.raises(UnknownNameError, match="unblur"):
        train(tiny_recipe(task="unblur"))
    with pytest.raises(UnknownNameError, match="python-b"):
        train(tiny_recipe(model="python-b"))
    assert not Path(tiny_recipe().run).exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_missing_device_is_named(tiny_recipe: RecipeMaker) -> None:
    with pytest.raises(DeviceError, match="cuda"):
        train(tiny_recipe(device="cuda"))


@pytest.fixture
def no_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs begin without trying a step of each stage."""
    monkeypatch.setattr("serpent_ir.training.forecast.Forecast.on_train_start", lambda *_: None)


class SometimesNaN(nn.Module):
    """A model whose output is NaN at the calls in `bad`; counts its calls in training mode."""

    def __init__(self, inner: nn.Module, bad: range) -> None:
        super().__init__()
        self.inner = inner
        self.config = inner.config
        self.bad = bad
        self.calls = 0
        self.weights: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        output = self.inner(image)
        if not self.training:
            return output
        self.weights.append(torch.cat([p.detach().flatten() for p in self.inner.parameters()]))
        self.calls += 1
        return output * float("nan") if self.calls - 1 in self.bad else output


@pytest.mark.usefixtures("no_forecast")
def test_a_step_that_is_not_finite_is_skipped_and_reported(
    tiny_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny_recipe(steps=6, bad_steps=3, log_every=1)
    model = SometimesNaN(create_model(recipe.model, **recipe.model_options), bad=range(2, 4))
    averages: list[Tensor] = []
    step = RestorationModule.optimizer_step

    def noted(module: RestorationModule, *arguments: Any) -> None:
        step(module, *arguments)
        averages.append(torch.cat([p.flatten() for p in module.average.module.inner.parameters()]))

    monkeypatch.setattr(RestorationModule, "optimizer_step", noted)
    monkeypatch.setattr("serpent_ir.training.initial_model.create_model", lambda *_, **__: model)
    monkeypatch.setattr("serpent_ir.training.run.save_weights", lambda *_: None)
    monkeypatch.setattr("serpent_ir.training.checkpoints.save_weights", lambda *_: None)
    assert train(recipe).step == 6
    changed = [not torch.equal(a, b) for a, b in zip(model.weights, model.weights[1:], strict=False)]
    assert changed == [True, True, False, False, True]
    moved = [not torch.equal(a, b) for a, b in pairwise(averages)]
    assert moved == [True, False, False, True, True]
    assert all(torch.isfinite(weights).all() for weights in model.weights)
    assert caplog.text.count("skipped: loss nan") == 2
    assert [row["skipped_steps"] for row in rows_of(recipe.run)] == ["0", "0", "1", "2", "2", "2"]


@pytest.mark.usefixtures("no_forecast")
def test_too_many_steps_in_a_row_that_are_not_finite_stop_training(
    tiny_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(steps=6, bad_steps=3)
    model = SometimesNaN(create_model(recipe.model, **recipe.model_options), bad=range(2, 9))
    monkeypatch.setattr("serpent_ir.training.initial_model.create_model", lambda *_, **__: model)
    with pytest.raises(TrainingError, match="3 steps in a row"):
        train(recipe)
    assert model.calls == 5


def test_validation_is_the_mean_psnr_of_clipped_outputs() -> None:
    photographs = generated_photographs(3, seed=0)
    brighten = Degradation("brighten", {}, (lambda image, generator=None: image + 0.1,))
    cleans = [photograph.pixels.unsqueeze(0).float() / 255 for photograph in photographs]
    expected = [psnr((clean + 0.1).clamp(0, 1), clean).item() for clean in cleans]
    arguments = (unrestored, photographs, brighten, 0, torch.device("cpu"))
    assert psnr_values(*arguments).tolist() == pytest.approx(expected, abs=1e-4)
    shares = [psnr_values(*arguments, rank=rank, processes=2) for rank in range(2)]
    assert torch.equal(shares[0] + shares[1], psnr_values(*arguments))
