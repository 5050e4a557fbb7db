from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from serpent_ir.cli.main import app
from serpent_ir.images import Picture, read_image, write_image
from serpent_ir.restoration import Degrader


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["degrade", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "c/a.png"):
        write_image(Picture(torch.full((3, 20, 30), 0.5), bit_depth=16), tmp_path / "in" / name)
    return tmp_path / "in"


def test_results_do_not_depend_on_other_files(tmp_path: Path, folder: Path) -> None:
    assert run(folder, tmp_path / "one", "--seed", 3) == f"{tmp_path / 'one'}\n"
    (folder / "a.png").unlink()
    run(folder, tmp_path / "two", "--seed", 3)
    run(folder, tmp_path / "three", "--seed", 4)
    for name in ("b.png", "c/a.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        assert (tmp_path / "one" / name).read_bytes() != (tmp_path / "three" / name).read_bytes()
    assert (tmp_path / "one" / "a.png").read_bytes() != (tmp_path / "one" / "c" / "a.png").read_bytes()


def test_a_file_gets_the_same_noise_in_every_form(tmp_path: Path, folder: Path) -> None:
    """By its name, into a file or a folder, through a pipe, and as part of a folder."""
    source = folder / "b.png"
    run(source, tmp_path / "one.png")
    expected = (tmp_path / "one.png").read_bytes()
    piped = CliRunner().invoke(app, ["degrade", str(source), "-"])
    assert piped.exit_code == 0 and piped.stdout_bytes == expected
    run(source)
    assert (folder / "b-degraded.png").read_bytes() == expected
    (folder / "b-degraded.png").unlink()
    run(folder, tmp_path / "all")
    assert (tmp_path / "all" / "b.png").read_bytes() == expected


def test_options_reach_the_task(tmp_path: Path, folder: Path) -> None:
    run(
        folder / "b.png",
        tmp_path / "out.png",
        "--task",
        "deblur",
        "--option",
        "noise_sigma=0.01",
        "--option",
        "blur_sigma=1",
    )
    written = read_image(tmp_path / "out.png")
    expected = Degrader("deblur", 0, noise_sigma=0.01, blur_sigma=1).degrade_picture(
        read_image(folder / "b.png"), "b.png"
    )
    torch.testing.assert_close(written.pixels, expected.pixels.clamp(0, 1), rtol=0, atol=0.51 / 65535)
    assert written.pixels.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(("task", "size"), [("sr4", (5, 8)), ("inpaint", (20, 30)), ("motion-deblur", (20, 30))])
def test_other_tasks(tmp_path: Path, folder: Path, task: str, size: tuple[int, int]) -> None:
    (folder / "b.png").rename(folder / "b.jpg")  # the content decides
    run(folder, tmp_path / "out", "--task", task)
    written = read_image(tmp_path / "out" / ("b.png" if task == "inpaint" else "b.jpg"))
    assert written.pixels.shape[1:] == size
    assert (written.alpha is not None) == (task == "inpaint")
    if written.alpha is not None:
        assert 0.02 < (written.alpha == 0).float().mean() < 0.6
        assert run(folder / "b.jpg", "--task", task) == f"{folder / 'b-degraded.png'}\n"


def test_a_task_of_ones_own(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "mine.json").write_text('[{"operator": "gaussian_noise", "sigma": 0.05}]')
    run(folder / "b.png", tmp_path / "out.png", "--task", tmp_path / "mine.json")
    assert (read_image(tmp_path / "out.png").pixels - 0.5).std().item() == pytest.approx(0.05, rel=0.1)


def test_default_names(folder: Path) -> None:
    assert run(folder / "a.png") == f"{folder / 'a-degraded.png'}\n"
    assert run(folder) == f"{folder.with_name('in-degraded')}\n"


def test_bad_files_are_counted(tmp_path: Path, folder: Path) -> None:
    (folder / "b.png").write_bytes(b"")
    (folder / "c" / "photo.heic").touch()
    result = CliRunner().invoke(app, ["degrade", str(folder), str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "2 of 3 images degraded, 1 failed" in result.stderr
    assert f"1 ignored, no images by their suffix or links to folders: {folder / 'c' / 'photo.heic'}" in result.stderr


def test_unknown_task_and_options(tmp_path: Path, folder: Path) -> None:
    for arguments, reason in (
        (["--task", "unbake"], "unbake"),
        (["--option", "temperature=180"], "temperature"),
        (["--option", "noise_sigma"], "key=value"),
        (["--option", "noise=-1"], "-1"),
        (["--task", "missing.json"], "missing.json cannot be read"),
    ):
        result = CliRunner().invoke(app, ["degrade", str(folder), str(tmp_path / "out"), *arguments])
        assert result.exit_code == 2, arguments
        assert result.stderr.startswith("error: ") and reason in result.stderr
    assert not (tmp_path / "out").exists()
