"""Every recipe that comes along: it can be read, and says what the paper says."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from serpent_ir.errors import UnknownNameError
from serpent_ir.models import list_embedded, read_card
from serpent_ir.recipes import bundled_recipe, find_recipe, list_recipes
from serpent_ir.training import Recipe, Stage, load_recipe
from serpent_ir.training.initial_model import initial_model, task_of

RATES = {"serpent": 1e-3, "swinir": 1e-3, "unet": 5e-4, "restormer": 3e-4}
OF_THE_PAPER = [name for name in list_recipes() if name.startswith(("deblur-256", "deblur-512", "sr8-512"))]


@cache
def loaded(name: str) -> Recipe:
    return load_recipe(find_recipe(name))


@pytest.mark.parametrize("name", list_recipes())
def test_can_be_trained(name: str) -> None:
    recipe = loaded(name)
    with torch.device("cpu" if recipe.init_from else "meta"):  # weights cannot be copied to meta
        initial_model(recipe, task_of(recipe))
    assert all(not Path(source.path).is_absolute() for source in [*recipe.data, *recipe.val])
    assert recipe.run == f"runs/{name}"
    header = find_recipe(name).read_text(encoding="utf-8").split("\nrun:")[0]
    assert f"--config {name}" in header and "cost:" in header and "expected:" in header


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_recipes_of_the_paper(name: str) -> None:
    recipe = loaded(name)
    task, size, model = name.split("-", 2)
    side = int(size)
    assert (recipe.task, recipe.model, recipe.epochs) == (task, model, 60)
    assert recipe.lr == RATES[model.partition("-")[0]]
    assert (recipe.optimizer, recipe.loss, recipe.ema, recipe.quantized_fraction) == ("adam", "l1", 0.999, 0.0)
    assert recipe.stages[-1].crop == side
    crops = [side] if model.startswith("swinir") else [side // 4, side // 2, side]
    assert [stage.crop for stage in recipe.stages] == crops
    pixels = {stage.batch * stage.crop**2 for stage in recipe.stages}
    assert len(pixels) == 1, "pixels per step stay constant in progressive learning"
    assert {stage.batch % 8 for stage in recipe.stages} == {0}, "eight GPUs share a batch"
    for sources, split in ((recipe.data, "train"), (recipe.val, "val")):
        assert [(source.path, source.layout, source.split, source.size) for source in sources] == [
            ("$FFHQ", "ffhq", split, side)
        ]


def test_the_paper_has_eighteen_rows() -> None:
    assert len(OF_THE_PAPER) == 7 + 6 + 5


@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_denoising_follows_cdncnn(sigma: int) -> None:
    recipe = loaded(f"denoise-{sigma}-serpent-l")
    assert (recipe.task, recipe.task_options) == ("denoise", {"sigma": sigma})
    assert recipe.model == "serpent-l" and recipe.model_options == {"input_skip": True}
    assert recipe.held_out == 0 and not recipe.val and recipe.quantized_fraction == 0


def test_equal_budgets_have_one_stage_and_validate_nothing() -> None:
    recipe = loaded("equal-budget")
    assert recipe.stages == [Stage(128, 2, 1.0)] and recipe.time_budget_seconds == 480
    assert not recipe.val and recipe.held_out == 0


@pytest.mark.parametrize("file", [file for _, _, file in list_embedded()], ids=lambda file: file.stem)
def test_shipped_weights_were_trained_by_their_recipe(file: Path) -> None:
    """What their card says of it, and no more: runs of earlier versions knew of fewer fields, and what only changes the
    speed may differ."""
    task, model = file.stem.split("-", 1)
    recipe = loaded(f"{task}-{model.removeprefix('serpent-')}").as_dict()
    card = read_card(file).provenance["recipe"]
    for name in ("task", "model", "task_options", "model_options", "init_from", "stages", "steps", "time_budget"):
        assert card[name] == recipe[name], name


def test_a_file_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("smoke").mkdir()
    assert find_recipe("smoke") == bundled_recipe("smoke") and bundled_recipe("smoke").is_file()
    Path("smoke").rmdir()
    Path("smoke").touch()
    assert find_recipe("smoke") == Path("smoke")
    with pytest.raises(UnknownNameError, match=r"'smok'.*a YAML file, or one of .*deblur-b.*smoke"):
        find_recipe("smok")
    with pytest.raises(UnknownNameError, match="one of"):
        find_recipe("../recipes/smoke")
