from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from serpent_ir.cli.evaluate import default_folder, evaluate
from serpent_ir.errors import DataError, FileWriteError, UnknownNameError
from serpent_ir.images import Picture, read_image, write_image
from serpent_ir.models import create_model, save_model


@pytest.fixture
def current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that holds `photographs/` (two of them) and `untrained.safetensors`."""
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    Path("photographs").mkdir()
    for name in ("first [red].png", "second.png"):
        write_image(Picture(torch.rand(3, 20, 28)), Path("photographs") / name)
    save_model(create_model("serpent-b"), "untrained.safetensors", task="deblur", provenance={"made": "for a test"})
    return tmp_path


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, ["photographs", "--model", "untrained.safetensors", "--device", "cpu", *arguments])


def test_prints_a_table_and_writes_json_and_panel(current_folder: Path) -> None:
    result = run("--seed", "4")
    assert result.exit_code == 0, result.output
    folder = Path("evaluation/deblur-untrained-photographs")
    content = json.loads((folder / "evaluation.json").read_text())
    assert (
        content["seed"] == 4
        and content["quantized"] is False
        and content["model"]["provenance"] == {"made": "for a test"}
    )
    assert [image["name"] for image in content["images"]] == ["first [red].png", "second.png"]
    for number in (content["mean"]["output"]["psnr"], content["images"][0]["input"]["psnr"]):
        assert f"{number:.2f}" in result.stdout
    assert "first [red].png" in result.stdout and "mean of 2" in result.stdout
    assert str(folder / "evaluation.json") in result.stdout and str(folder / "panel.png") in result.stdout
    panel = read_image(folder / "panel.png")
    assert panel.width > 3 * 28 and panel.height > 2 * 20
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.json", "panel.png"]


def test_options_reach_the_evaluation(current_folder: Path) -> None:
    result = run("--quantized", "--limit", "1", "--out", "results/here")
    assert result.exit_code == 0, result.output
    content = json.loads(Path("results/here/evaluation.json").read_text())
    assert content["quantized"] is True and len(content["images"]) == 1
    assert "8 bits" in result.stdout


def test_options_of_the_task_and_the_backend(current_folder: Path) -> None:
    result = run("--option", "noise_sigma=0.01", "--option", "kernel_size=5", "--backend", "portable", "--out", "out")
    assert result.exit_code == 0, result.output
    options = json.loads(Path("out/evaluation.json").read_text())["options"]
    assert options == {"blur_sigma": 3.0, "noise_sigma": 0.01, "kernel_size": 5}
    for arguments in (("--backend", "abacus"), ("--option", "temperature=180"), ("--option", "noise_sigma")):
        assert isinstance(run(*arguments).exception, UnknownNameError)


def test_files_that_are_no_images_are_named_and_counted(current_folder: Path) -> None:
    Path("photographs/photo.heic").touch()
    result = run("--limit", "1")
    assert result.exit_code == 1
    assert "1 ignored, no images by their suffix: photo.heic" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_names_that_are_not_utf8(current_folder: Path) -> None:
    folder = os.fsencode("photographs") + b"/\xff"
    os.mkdir(folder)
    os.rename(b"photographs/second.png", folder + b"/\xfe.png")
    result = run("--out", os.fsdecode(b"out\xff"))
    assert result.exit_code == 0, result.output
    assert r"\udcff/\udcfe.png" in result.stdout and Path(os.fsdecode(b"out\xff/panel.png")).exists()


def test_skipped_files_are_named_on_stderr_and_in_the_exit_status(current_folder: Path) -> None:
    Path("photographs/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = run()
    assert result.exit_code == 1
    assert "broken.png" in result.stderr and "broken.png" not in result.stdout
    assert "1 of 3 images skipped" in result.stderr
    content = json.loads(Path("evaluation/deblur-untrained-photographs/evaluation.json").read_text())
    assert [failure["name"] for failure in content["failed"]] == ["broken.png"] and len(content["images"]) == 2


def test_errors_are_named(current_folder: Path) -> None:
    Path("file").touch()
    result = run("--out", "file/below")
    assert isinstance(result.exception, FileWriteError) and "cannot be created" in str(result.exception)
    for path in Path("photographs").iterdir():
        path.unlink()
    result = run()
    assert isinstance(result.exception, DataError) and "no image" in str(result.exception)


def test_default_folder_names_task_model_and_folder(current_folder: Path) -> None:
    assert default_folder("deblur", "serpent-b", Path("photographs/"), False) == Path(
        "evaluation/deblur-serpent-b-photographs"
    )
    assert default_folder("deblur", "a/b.safetensors", current_folder / "photographs", True) == Path(
        "evaluation/deblur-b-photographs-quantized"
    )
