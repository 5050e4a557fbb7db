from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner, Result

import serpent_ir
from serpent_ir.cli.main import app
from serpent_ir.images import Picture, read_image, write_image
from serpent_ir.models import create_model, save_model
from serpent_ir.restoration import Restorer


def run(*arguments: object) -> Result:
    """`serpent restore ARGUMENTS` on the CPU."""
    return CliRunner().invoke(app, ["restore", *map(str, arguments), "--device", "cpu"])


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "deblur-untrained.safetensors"
    save_model(create_model("serpent-b"), path, task="deblur")
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good images and two bad ones."""
    folder = tmp_path / "in"
    for name in ("a.png", "b/c.jpg"):
        write_image(Picture(torch.rand(3, 9, 12, generator=torch.Generator().manual_seed(0))), folder / name)
    (folder / "empty.png").touch()
    (folder / "b" / "text [1].png").write_text("not an image")
    return folder


def test_one_file(tmp_path: Path, folder: Path, weights: str) -> None:
    source = folder / "a.png"
    expected = Restorer("deblur", weights, "cpu")(read_image(source).pixels).mul(255).round() / 255
    for arguments, written in (
        ([], folder / "a-restored.png"),
        ([str(tmp_path / "out.tif")], tmp_path / "out.tif"),
        ([str(tmp_path)], tmp_path / "a.png"),
    ):
        result = run(source, *arguments, "--model", weights)
        assert result.exit_code == 0, result.output
        assert result.stdout == f"{written}\n"
        assert "a.png was restored" in result.stderr
        assert (read_image(written).pixels - expected).abs().max() <= 1.5 / 255


def test_degraded_and_restored_with_holes_and_without_a_task(tmp_path: Path, folder: Path) -> None:
    options = {"embed_channels": 6, "depths_down": (1,), "depth_bottleneck": 1, "depths_up": (0,), "in_channels": 4}
    weights = tmp_path / "weights.safetensors"
    save_model(create_model("serpent-b", **options), weights, task="inpaint")
    clean, source, target = folder / "a.png", tmp_path / "holed.png", tmp_path / "filled.png"
    result = CliRunner().invoke(app, ["degrade", str(clean), str(source), "--task", "inpaint"])
    assert result.exit_code == 0, result.output
    result = run(source, target, "--model", weights)
    assert result.exit_code == 0, result.output
    holed, filled = read_image(source), read_image(target)
    assert holed.alpha is not None and filled.alpha is None
    known = holed.alpha[0] == 1
    assert 0.5 < known.float().mean() < 1
    assert torch.equal(filled.pixels[:, known], read_image(clean).pixels[:, known])
    result = run(clean, target, "--model", weights)
    assert result.exit_code == 2 and "a.png has no transparency" in result.stderr


def test_folder_with_bad_files(tmp_path: Path, folder: Path, weights: str) -> None:
    result = run(folder, tmp_path / "out", "--model", weights)
    assert result.exit_code == 1
    assert result.stdout == f"{tmp_path / 'out'}\n"
    assert "2 of 4 images restored, 2 failed, in " in result.stderr
    summary = result.stderr.split("2 of 4 images restored")[1]
    assert f"  {folder / 'empty.png'} is empty (0 bytes)" in summary
    assert f"  {folder / 'b' / 'text [1].png'} is not an image of a known format" in summary
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["a.png", "b/c.jpg"]


def test_folder_without_out_and_without_bad_files(folder: Path, weights: str) -> None:
    (folder / "empty.png").unlink()
    (folder / "b" / "text [1].png").unlink()
    result = run(folder, "--model", weights, "--backend", "portable")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{folder.with_name('in-restored')}\n"
    assert (folder.with_name("in-restored") / "b" / "c.jpg").exists()


def test_the_input_is_replaced_only_on_request(folder: Path, weights: str) -> None:
    source = folder / "a.png"
    before = source.read_bytes()
    result = run(source, source, "--model", weights)
    assert result.exit_code == 2 and "is the input itself" in result.stderr
    assert source.read_bytes() == before
    result = run(source, source, "--model", weights, "--overwrite")
    assert result.exit_code == 0 and source.read_bytes() != before


def test_fatal_errors_are_named(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for arguments, reason in (
        ((tmp_path / "nothing", tmp_path / "out"), "holds no image"),
        ((folder, folder / "out"), "lies in the input folder"),
        ((folder / "a.png", tmp_path / "out.bmp"), "a suffix among .png"),
        ((folder / "a.png", "--model", "serpent-z"), "serpent-z"),
        ((folder / "missing.png", "--model", "serpent-z"), "missing.png does not exist"),
        ((folder / "empty.png",), "is empty (0 bytes)"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and result.stdout == "", arguments
        assert reason in result.stderr, arguments
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.bmp").exists()


def test_interrupted(tmp_path: Path, folder: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during the second image: the first result stays, nothing is left of the second."""
    calls: list[Tensor] = []

    def second_time_interrupted(self: Restorer, image: Tensor) -> Tensor:
        calls.append(image)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return image

    monkeypatch.setattr(Restorer, "__call__", second_time_interrupted)
    result = run(folder, tmp_path / "out", "--model", weights)
    assert result.exit_code == 130
    assert "1 of 4 images were done" in result.stderr and result.stdout == ""
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["a.png"]


def test_files_that_are_no_images_are_named_and_counted(folder: Path, weights: str) -> None:
    (folder / "empty.png").unlink()
    (folder / "b" / "text [1].png").unlink()
    for number in range(7):
        (folder / f"{number}.heic").touch()
    (folder / ".directory").touch()
    result = run(folder, "--model", weights)
    assert result.exit_code == 1
    assert "2 of 2 images restored, 0 failed" in result.stderr
    assert f"7 ignored, no images by their suffix: {folder / '0.heic'}, " in result.stderr
    assert f"{folder / '4.heic'}, ..." in result.stderr and "5.heic" not in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_names_that_are_not_utf8(folder: Path, weights: str) -> None:
    """In a process of its own, whose standard output takes no surrogates: the path comes out byte for byte."""
    for kept, name in (("empty.png", b"empty\xff.png"), ("a.png", b"\xff.png")):
        os.rename(os.fsencode(folder / kept), os.fsencode(folder) + b"/" + name)
    (folder / "b" / "text [1].png").unlink()
    program = "from serpent_ir.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(Path(serpent_ir.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}

    def serpent(*arguments: str | bytes | Path) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-c", program, "restore", *arguments, "--model", weights, "--device", "cpu"]
        return subprocess.run(command, env=environment, capture_output=True)

    one = serpent(os.fsencode(folder) + b"/\xff.png")
    assert (one.returncode, one.stdout) == (0, os.fsencode(folder) + b"/\xff-restored.png\n"), one.stderr
    several = serpent(folder, os.fsencode(folder.parent) + b"/out\xfe")
    assert (several.returncode, several.stdout) == (1, os.fsencode(folder.parent) + b"/out\xfe\n"), several.stderr
    assert rb"empty\udcff.png is empty" in several.stderr
    assert sorted(os.listdir(os.fsencode(folder.parent) + b"/out\xfe")) == [b"b", b"\xff-restored.png", b"\xff.png"]


def test_ensemble_and_strength(tmp_path: Path, folder: Path, weights: str) -> None:
    pixels = read_image(folder / "a.png").pixels
    result = run(folder / "a.png", tmp_path / "a.tif", "--model", weights, "--ensemble", "--strength", "0.5")
    assert result.exit_code == 0, result.output
    expected = Restorer("deblur", weights, "cpu", ensemble=True, strength=0.5)(pixels)
    assert (read_image(tmp_path / "a.tif").pixels - expected).abs().max() <= 1.5 / 255
    result = run(folder / "a.png", tmp_path / "same.png", "--model", weights, "--strength", "0")
    assert result.exit_code == 0 and torch.equal(read_image(tmp_path / "same.png").pixels, pixels)
    result = run(folder / "a.png", tmp_path / "b.png", "--model", weights, "--strength", "1.5")
    assert result.exit_code == 2 and "strength 1.5; expected a number from 0" in result.stderr
    assert not (tmp_path / "b.png").exists()


def test_check_of_a_file(tmp_path: Path, folder: Path, weights: str) -> None:
    source, target = folder / "a.png", tmp_path / "out.png"
    result = run(source, target, "--model", weights, "--check")
    assert result.exit_code == 0 and result.stdout == f"{target}\n", result.output
    for words in ("the result ", "residual: standard deviation", "structure: correlation", "dB", "out-fidelity.png"):
        assert words in result.stderr
    drawn = read_image(tmp_path / "out-fidelity.png")
    assert (drawn.width, drawn.height) == (12, 9)
    before = source.read_bytes()
    result = run(source, source, "--model", weights, "--check", "--overwrite")
    assert result.exit_code == 2 and "would replace the input" in result.stderr and source.read_bytes() == before


def test_check_of_a_folder(tmp_path: Path, folder: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line a result; a map that cannot be written is named, and the exit status says so."""
    (folder / "empty.png").unlink()
    (folder / "b" / "text [1].png").unlink()
    result = run(folder, tmp_path / "out", "--model", weights, "--check")
    assert result.exit_code == 0, result.output
    for name in ("a", "b/c"):
        assert (tmp_path / "out" / f"{name}-fidelity.png").exists()
    assert f"{tmp_path / 'out' / 'a.png'}: the result " in result.stderr and "dB" in result.stderr
    assert result.stdout == f"{tmp_path / 'out'}\n"
    (tmp_path / "out" / "a-fidelity.png").unlink()
    (tmp_path / "out" / "a-fidelity.png").mkdir()
    result = run(folder, tmp_path / "out", "--model", weights, "--check")
    assert result.exit_code == 1 and f"not checked {tmp_path / 'out' / 'a.png'}: " in result.stderr
    assert "2 of 2 images restored, 0 failed" in result.stderr and "1 could not be checked" in result.stderr
