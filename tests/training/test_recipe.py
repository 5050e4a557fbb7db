from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from serpent_ir.data import PhotographSource
from serpent_ir.errors import RecipeError
from serpent_ir.training import Recipe, Stage, load_recipe
from serpent_ir.training.recipe import recipe_from_dict
from serpent_ir.training.weights_file import provenance_of

RECIPE = """
run: runs/test
task: deblur
model: serpent-b
model_options: {embed_channels: 8, depths_down: [1, 1]}
data:
  - path: $PHOTOGRAPHS/one
    shrink: [1.0, 2.0]
  - path: two
stages:
  - {crop: 64, batch: 8, fraction: 0.25}
  - {crop: 128, batch: 2, fraction: 0.75}
time_budget: 1h30m
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_yaml_is_read_with_defaults_for_the_rest(config: Path) -> None:
    recipe = load_recipe(config)
    assert recipe.data == [PhotographSource("$PHOTOGRAPHS/one", (1.0, 2.0)), PhotographSource("two")]
    assert recipe.stages == [Stage(64, 8, 0.25), Stage(128, 2, 0.75)]
    assert recipe.model_options == {"embed_channels": 8, "depths_down": [1, 1]}
    assert recipe.time_budget_seconds == 5400 and recipe.max_time_seconds is None
    assert (recipe.lr, recipe.loss, recipe.ema, recipe.quantized_fraction) == (1e-3, "l1", 0.999, 0.5)


def test_arguments_override_fields(config: Path) -> None:
    recipe = load_recipe(
        config,
        [
            *["--lr", "5e-4", "--task_options.noise_sigma", "0.1", "--model_options.embed_channels=12"],
            *["--stages", "[{crop: 32, batch: 4, fraction: 1.0}]", "--optimizer=adamw", "--max_time", "90s"],
        ],
    )
    assert recipe.lr == 5e-4 and recipe.optimizer == "adamw" and recipe.max_time_seconds == 90
    assert recipe.task_options == {"noise_sigma": 0.1}
    assert recipe.model_options == {"embed_channels": 12, "depths_down": [1, 1]}
    assert recipe.stages == [Stage(32, 4, 1.0)]


@pytest.mark.parametrize(
    "arguments",
    [["--data", "a:1.35-2", "b c", "--val", "d"], ["--data=a:1.35-2", "--val=d", "--data", "b c"]],
    ids=["list", "repeated"],
)
def test_folders_on_the_command_line_replace_those_of_the_file(config: Path, arguments: list[str]) -> None:
    recipe = load_recipe(config, ["--lr", "0.1", *arguments, "--steps", "7"])
    assert recipe.data == [PhotographSource("a", (1.35, 2.0)), PhotographSource("b c")]
    assert recipe.val == [PhotographSource("d")]
    assert (recipe.lr, recipe.steps) == (0.1, 7)


@pytest.mark.parametrize(
    "arguments", [["--val"], ["--data", "--steps", "5"], ["--val="], ["--data", ""], ["--data", "a", "--data"]]
)
def test_options_without_a_folder_are_refused(config: Path, arguments: list[str]) -> None:
    with pytest.raises(RecipeError, match=r"option --(data|val) names no folder"):
        load_recipe(config, arguments)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("stages: [{class_path: imported_by_recipe.X}]", "class_path"),
        ("val: [{path: a, shrink: {class_path: imported_by_recipe.X}}]", "class_path"),
        ("task_options: {a: {class_path: imported_by_recipe.X}}", "class_path"),
        ("stages: [imported_by_recipe.X]", "a word in field stages"),
        ("val: [imported_by_recipe.X]", "a word in field val"),
        ("config: other.yaml", "config"),
        ("init_from: 2024-99-99\nstages: [{class_path: imported_by_recipe.X}]", "is not YAML"),
    ],
)
def test_a_file_imports_nothing(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], field: str, said: str
) -> None:
    config.with_name("imported_by_recipe.py").write_text("print('imported')\nclass X: pass\n")
    config.with_name("other.yaml").write_text("stages: [{class_path: imported_by_recipe.X}]\n")
    monkeypatch.syspath_prepend(str(config.parent))
    monkeypatch.chdir(config.parent)
    config.write_text(RECIPE + field + "\n")
    with pytest.raises(RecipeError, match=said):
        load_recipe(config)
    assert capsys.readouterr().out == ""


def test_what_a_file_says_of_its_folders_goes_with_them(config: Path) -> None:
    faces = "[{path: $FFHQ, layout: ffhq, split: train, size: 256, shrink: [1.0, 2.0]}]"
    lines = f"data: {faces}\nval: {faces}\nstages: [{{crop: 64, batch: 8, fraction: 1.0}}]\n"
    config.write_text(RECIPE.split("data:")[0] + lines)
    recipe = load_recipe(config, ["--data", "mine"])
    assert recipe.data == [PhotographSource("mine")] and recipe.val[0].layout == "ffhq"


def test_a_length_is_given_in_steps_or_in_epochs(config: Path) -> None:

    def length(*arguments: str) -> tuple[int | None, float | None]:
        recipe = load_recipe(config, arguments)
        return recipe.steps, recipe.epochs

    assert length() == (10_000, None)
    config.write_text(RECIPE + "epochs: 60\n")
    assert [length(), length("--steps=7")] == [(None, 60), (7, None)]
    config.write_text(RECIPE + "steps: 7\n")
    assert length("--epochs", "2") == (None, 2)
    with pytest.raises(RecipeError, match=r"steps is 8; expected none beside epochs \(2"):
        load_recipe(config, ["--epochs", "2", "--steps", "8"])
    config.write_text(RECIPE + "steps: 7\nepochs: 60\n")
    with pytest.raises(RecipeError, match="steps is 7; expected none beside epochs"):
        load_recipe(config)


@pytest.mark.parametrize(
    "field,value",
    [
        ("learning_rate", "0.1"),
        ("lr", "fast"),
        ("lr", "-1"),
        ("lr", "nan"),
        ("steps", "1.5"),
        ("steps", "0"),
        ("loss", "l3"),
        ("precision", "16"),
        ("time_budget", "3 days"),
        ("max_time", "0s"),
        ("ema", "1.0"),
        ("betas", "[0.9, 1.0]"),
        ("quantized_fraction", "1.1"),
        ("stages", "[]"),
        ("stages", "[{crop: 32}]"),
        ("stages", "[{crop: 32, batch: 1, fraction: 0.4}]"),
        ("stages", "[{crop: 0, batch: 1, fraction: 1.0}]"),
        ("model_options", "3"),
        ("epochs", "0"),
        ("devices", "0"),
        ("devices", "3"),  # batches of 8
        ("operators", "[gaussian_blur]"),
    ],
)
def test_unknown_fields_and_wrong_values_are_refused_by_name(config: Path, field: str, value: str) -> None:
    with pytest.raises(RecipeError, match=field):
        load_recipe(config, [f"--{field}", value])


@pytest.mark.parametrize(
    "line", ["surprise: 3", "data: [{path: a, weight: 2}]", "data: [{path: a, shrink: [0.5, 1.0]}]"]
)
def test_unknown_keys_and_wrong_values_of_the_file_are_refused(config: Path, line: str) -> None:
    config.write_text(RECIPE.split("data:")[0] + line + "\n")
    with pytest.raises(RecipeError, match=r"surprise|weight|shrink"):
        load_recipe(config)


def test_missing_fields_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="required: run, task, model"):
        load_recipe(None)
    with pytest.raises(RecipeError, match=r"nothing\.yaml"):
        load_recipe(tmp_path / "nothing.yaml")
    with pytest.raises(RecipeError, match="stages"):
        load_recipe(None, ["--run", "a", "--task", "deblur", "--model", "serpent-b", "--data", "b"])
    with pytest.raises(RecipeError, match="--data"):
        load_recipe(None, ["--run", "a", "--task", "deblur", "--model", "serpent-b"])


@pytest.mark.parametrize("text,seconds", [("90", 90), ("1.5", 1.5), ("45m", 2700), ("2h", 7200), ("1h2m3s", 3723)])
def test_durations(tiny_recipe: Callable[..., Recipe], text: str, seconds: float) -> None:
    assert tiny_recipe(time_budget=text).time_budget_seconds == seconds


def test_sources_of_photographs_are_read_and_written(config: Path) -> None:
    sources = """data:
  - {path: $FFHQ, layout: ffhq, split: train, size: 256}
  - {path: "https://user:secret@host/train-{000..059}.tar?key=secret", shrink: [1.0, 2.0]}
val: [{path: /home/me/pairs, layout: paired}]
cache: none
"""
    config.write_text(RECIPE.split("data:")[0] + sources + "stages: [{crop: 64, batch: 8, fraction: 1.0}]\n")
    recipe = load_recipe(config)
    assert recipe.data == [
        PhotographSource("$FFHQ", layout="ffhq", split="train", size=256),
        PhotographSource("https://user:secret@host/train-{000..059}.tar?key=secret", (1.0, 2.0)),
    ]
    assert recipe_from_dict(yaml.safe_load(yaml.safe_dump(recipe.as_dict()))) == recipe
    facts = provenance_of(recipe, 3, 1, None)
    assert facts["recipe"]["data"][0] == {
        "path": "$FFHQ",
        "shrink": [1.0, 1.0],
        "layout": "ffhq",
        "split": "train",
        "size": 256,
    }
    assert "secret" not in str(facts) and "/home" not in str(facts) and "training_hashes" not in facts
    with pytest.raises(RecipeError, match="cache"):
        load_recipe(config, ["--val", "x", "--data", "y", "--cache", "tape"])


def test_a_source_that_says_nothing_new_is_written_as_before() -> None:
    """Runs of earlier versions can be continued: their recipes know of path and shrink alone."""
    assert PhotographSource("a", (1.0, 2.0)).as_dict() == {"path": "a", "shrink": [1.0, 2.0]}


def test_plain_form_survives_yaml(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(data=[PhotographSource("somewhere", (1.0, 1.5))], max_time="5m")
    assert recipe_from_dict(yaml.safe_load(yaml.safe_dump(recipe.as_dict()))) == recipe
