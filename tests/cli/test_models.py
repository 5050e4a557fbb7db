from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from serpent_ir.cli.main import app
from serpent_ir.models import create_model, save_model


def test_lists_models_with_size_and_cost() -> None:
    result = CliRunner().invoke(app, ["models"])
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines()}
    assert rows["serpent-b"][1:4] == ["3.708", "M", "1.40"] and rows["serpent-b"][4:] == ["deblur,", "sr8"]
    assert rows["serpent-h"][3] == "22.24"


def test_describes_a_weights_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "w.safetensors"
    save_model(
        create_model("serpent-b", directions=1), path, task="deblur", provenance={"steps": 12345, "hashes": ["ab"] * 21}
    )
    result = CliRunner().invoke(app, ["models", str(path)])
    assert result.exit_code == 0
    for part in ("serpent-b", "deblur", '"directions": 1', "12345", "F32", '["ab", "ab", ...] (21 in all)'):
        assert part in result.stdout


def test_a_file_that_is_none() -> None:
    result = CliRunner().invoke(app, ["models", "nowhere.safetensors"])
    assert result.exit_code == 2
    assert "error: no file nowhere.safetensors" in result.stderr
