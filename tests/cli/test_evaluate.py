from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from stand_ins_of_evaluation import Same
from typer.testing import CliRunner, Result

from serpent_ir.cli.evaluate import default_folder, evaluate
from serpent_ir.errors import CheckpointError, DataError, FileWriteError, UnknownNameError
from serpent_ir.evaluation import Evaluator, Scoring
from serpent_ir.images import Picture, content_hash, read_image, write_image
from serpent_ir.metrics import Lpips
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
    usual = ["photographs", "--task", "deblur", "--model", "untrained.safetensors", "--device", "cpu"]
    return CliRunner().invoke(app, [*usual, *arguments])


def test_prints_tables_and_writes_them_with_a_page(current_folder: Path) -> None:
    result = run("--seed", "4", "--per-image")
    assert result.exit_code == 0, result.output
    folder = Path("evaluation/deblur-untrained-photographs")
    content = json.loads((folder / "evaluation.json").read_text())
    assert content["seed"] == 4 and content["quantized"] is False
    assert content["models"][0]["card"]["provenance"] == {"made": "for a test"}
    assert [image["name"] for image in content["images"]] == ["first [red].png", "second.png"]
    for number in (content["mean"]["untrained"]["psnr"]["mean"], content["images"][0]["scores"]["degraded"]["psnr"]):
        assert f"{number:.2f}" in result.stdout
    assert "first [red].png" in result.stdout and "2 images" in result.stdout
    assert "training data not known" in " ".join(result.stdout.split())
    for name in ("evaluation.json", "index.html", "table.md", "table.tex", "images.csv"):
        assert name in result.stdout and (folder / name).is_file()
    assert len(list((folder / "pictures").iterdir())) == 2 * 3 * 2


def test_several_models_on_the_same_images(current_folder: Path) -> None:
    seen = content_hash(read_image("photographs/second.png").pixels.mul(255).round().byte())
    provenance = {"training_hashes": [seen]}
    save_model(create_model("unet-32", channels=4), "small.safetensors", task="denoise", provenance=provenance)
    result = run("--model", "small.safetensors", "--channel", "y", "--border", "2", "--pictures", "0")
    assert result.exit_code == 0, result.output
    folder = Path("evaluation/deblur-untrained-small-photographs-y-border-2")
    content = json.loads((folder / "evaluation.json").read_text())
    assert list(content["mean"]) == ["degraded", "untrained", "small"] and content["channel"] == "y"
    assert content["models"][1]["trained_on"] == ["second.png"]
    assert "WARNING: small was trained on 1 of 2 evaluated images: second.png" in " ".join(result.stderr.split())
    assert "trained for denoise" in " ".join(result.stdout.split())
    assert not (folder / "pictures").exists()


def test_lpips_without_its_weights_is_an_error(current_folder: Path) -> None:
    for arguments in ((), ("--lpips",)):
        result = run(*arguments, "--lpips-weights", "nowhere")
        assert isinstance(result.exception, CheckpointError)
        assert "nowhere/alexnet-owt-7be5be79.pth" in str(result.exception)
    assert not Path("evaluation").exists()


def test_without_a_model_those_embedded_for_the_task(current_folder: Path) -> None:
    app = typer.Typer()
    app.command()(evaluate)
    arguments = ["photographs", "--task", "deblur", "--limit", "1", "--device", "cpu", "--out", "out"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "deblur-serpent-b" in json.loads(Path("out/evaluation.json").read_text())["mean"]


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


def test_a_task_of_ones_own(current_folder: Path) -> None:
    Path("mine.json").write_text('[{"operator": "gaussian_noise", "sigma": 0.2}, {"operator": "jpeg", "quality": 30}]')
    result = run("--task", "mine.json", "--quantized")
    assert result.exit_code == 0, result.output
    (folder,) = Path("evaluation").iterdir()
    assert re.fullmatch("mine-untrained-photographs-[0-9a-f]{8}-quantized", folder.name)
    content = json.loads((folder / "evaluation.json").read_text())
    assert content["task"] == "mine" and content["models"][0]["task"] == "deblur"
    assert "trained for deblur" in " ".join(result.stdout.split())


def invoke(*arguments: str) -> Result:
    """The command without a model."""
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [*arguments, "--limit", "1", "--device", "cpu"])


def test_a_task_of_ones_own_is_evaluated_with_the_weights_that_are_blind(current_folder: Path) -> None:
    Path("phone.yaml").write_text("- {operator: gaussian_noise, sigma: 0.1}\n")
    result = invoke("photographs", "--task", "phone.yaml", "--out", "out")
    assert result.exit_code == 0, result.output
    assert "no weights are for phone: evaluated are photo-serpent-l" in result.stderr
    assert json.loads(Path("out/evaluation.json").read_text())["models"][0]["task"] == "photo"


def test_a_task_without_weights_and_a_slip_of_the_pen_are_told_apart(current_folder: Path) -> None:
    assert "unknown task 'deblurr'" in str(invoke("photographs", "--task", "deblurr").exception)
    assert "no embedded weights for task 'inpaint'" in str(invoke("photographs", "--task", "inpaint").exception)


def test_results_are_never_taken_for_photographs(current_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("--out", "photographs/out")
    assert isinstance(result.exception, FileWriteError) and not Path("photographs/out").exists()
    assert f"Name one with --out, such as {current_folder.resolve()}/photographs-evaluation" in str(result.exception)
    monkeypatch.chdir("photographs")
    for _ in range(2):
        result = invoke(".", "--task", "denoise")
        assert result.exit_code == 0, result.output
    folder = current_folder / "evaluation/denoise-denoise-serpent-l-photographs-limit-1"
    assert f"{folder.resolve()}/index.html" in "".join(result.stdout.split())
    assert sorted(os.listdir()) == ["first [red].png", "second.png"]


def test_files_that_are_no_images_are_named_and_counted(current_folder: Path) -> None:
    Path("photographs/photo.heic").touch()
    result = run("--limit", "1")
    assert result.exit_code == 1
    assert "1 ignored, no images by their suffix or links to folders: photo.heic" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_names_that_are_not_utf8(current_folder: Path) -> None:
    folder = os.fsencode("photographs") + b"/\xff"
    os.mkdir(folder)
    os.rename(b"photographs/second.png", folder + b"/\xfe.png")
    result = run("--out", os.fsdecode(b"out\xff"), "--per-image")
    assert result.exit_code == 0, result.output
    assert r"\udcff/\udcfe.png" in result.stdout and Path(os.fsdecode(b"out\xff/index.html")).exists()


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


def test_default_folder_names_task_models_folder_and_what_is_not_usual(current_folder: Path) -> None:
    def folder(
        *labels: str, task: str = "deblur", name: str = "photographs/", limit: int | None = None, **settings: Any
    ) -> str:
        evaluator = Evaluator(task, {label: Same() for label in labels}, device="cpu", **settings)
        return default_folder(evaluator, Path(name), limit).as_posix()

    assert folder("serpent-b") == "evaluation/deblur-serpent-b-photographs"
    assert folder("run/best", quantized=True) == "evaluation/deblur-run-best-photographs-quantized"
    own = []
    for quality in (30, 50, 30):
        Path("own.json").write_text(json.dumps([{"operator": "jpeg", "quality": quality}]))
        own.append(folder("a", "b", "c", "d", "e", task="own.json"))
    assert re.fullmatch("evaluation/own-a-b-c-and-2-more-photographs-[0-9a-f]{8}", own[0])
    assert own[0] == own[2] != own[1]
    lpips = Scoring(lpips=Lpips.__new__(Lpips))
    assert folder("a", scoring=lpips, limit=3) == "evaluation/deblur-a-photographs-lpips-limit-3"
    options = {"noise_sigma": 0.05, "blur_sigma": [2, 4.5]}
    expected = "evaluation/deblur-a-photographs-blur_sigma-2-4.5-y-border-4"
    assert folder("a", options=options, scoring=Scoring("y", 4)) == expected
    assert len({folder("a", task="denoise", options={"sigma": sigma}) for sigma in (15, 25, 50)}) == 3
    assert folder("a", name=os.fsdecode(b"x\xff")) == "evaluation/deblur-a-x-udcff"
