from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from serpent_ir.cli.train import train
from serpent_ir.errors import RecipeError
from serpent_ir.models import read_card

RECIPE = """
task: deblur
model: serpent-b
model_options: {embed_channels: 6, depths_down: [1], depth_bottleneck: 1, depths_up: [0], directions: 1}
generated_images: 4
stages: [{crop: 16, batch: 2, fraction: 1.0}]
steps: 3
threads: 1
device: cpu
"""


@pytest.fixture
def application() -> typer.Typer:
    app = typer.Typer()
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(train)
    return app


def test_trains_as_recipe_and_arguments_say(application: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run = tmp_path / "run"
    arguments = ["--config", str(tmp_path / "recipe.yaml"), "--run", str(run), "--steps", "2", "--lr=5e-4"]
    result = CliRunner().invoke(application, arguments)
    assert result.exit_code == 0, result.output
    assert f"{run / 'model.safetensors'}: 2 steps, validation" in result.stdout
    assert "step 2/2" in result.stderr and "step 2/2" not in result.stdout
    assert read_card(run / "model.safetensors").provenance["recipe"]["lr"] == 5e-4


def test_says_how_to_continue_after_max_time(application: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    arguments = ["--config", str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run"), "--max_time", "0.001"]
    result = CliRunner().invoke(application, arguments)
    assert result.exit_code == 0, result.output
    assert "stopped after step 1" in result.stdout and "the same command continues" in result.stdout


def test_unknown_field_is_named(application: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    result = CliRunner().invoke(application, ["--config", str(tmp_path / "recipe.yaml"), "--learning_rate", "1"])
    assert isinstance(result.exception, RecipeError)
    assert "learning_rate" in str(result.exception)
