from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
import pyvips
import torch

from serpent_ir.errors import DtypeError, ImageWriteError, RangeError, ShapeError
from serpent_ir.images import Picture, read_image, write_image

PIXELS = torch.full((3, 6, 5), 0.4)


def test_failure_while_saving_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    write_image(Picture(PIXELS), path)
    old = path.read_bytes()

    def half_then_fail(image: pyvips.Image, target: pyvips.Target) -> None:
        next(tmp_path.glob(".*")).write_bytes(b"half")
        raise pyvips.Error("cannot save", "no space left on device")

    monkeypatch.setattr(pyvips.Image, "pngsave_target", half_then_fail, raising=False)
    with pytest.raises(ImageWriteError, match=r"picture\.png cannot be written"):
        write_image(Picture(PIXELS * 0.5), path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["picture.png"]


def test_interruption_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.tif"
    write_image(Picture(PIXELS), path)
    old = path.read_bytes()

    def interrupt(source: str, target: Path) -> None:
        assert Path(source).exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_image(Picture(PIXELS * 0.5), path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["picture.tif"]


@pytest.mark.parametrize("name", ["picture.gif", "picture.bmp", "picture", "png"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageWriteError, match=r"expected a suffix among \.png, \.jpg"):
        write_image(Picture(PIXELS), tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    pixels = PIXELS.clone()
    pixels[1, 2, 3] = value
    with pytest.raises(ImageWriteError, match="not finite"):
        write_image(Picture(pixels), tmp_path / "picture.png")
    with pytest.raises(ImageWriteError, match="alpha of the picture are not finite"):
        write_image(Picture(PIXELS, pixels[1:2]), tmp_path / "picture.png")
    assert os.listdir(tmp_path) == []


def test_missing_folders_are_made_and_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    write_image(Picture(PIXELS), tmp_path / "a" / "b" / "picture.png")
    assert read_image(tmp_path / "a" / "b" / "picture.png").width == 5
    with pytest.raises(ImageWriteError, match="cannot be written"):
        write_image(Picture(PIXELS), tmp_path / "a" / "b" / "picture.png" / "picture.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageWriteError, match="cannot be written"):
        write_image(Picture(PIXELS), tmp_path / "folder.png")
    assert sorted(os.listdir(tmp_path)) == ["a", "folder.png"]


def test_too_wide_for_the_format(tmp_path: Path) -> None:
    with pytest.raises(ImageWriteError, match="cannot be written"):
        write_image(Picture(torch.zeros(3, 1, 16384)), tmp_path / "picture.webp")
    assert os.listdir(tmp_path) == []


def test_ordinary_permissions(tmp_path: Path) -> None:
    write_image(Picture(PIXELS), tmp_path / "picture.png")
    (tmp_path / "other").touch()
    assert stat.S_IMODE((tmp_path / "picture.png").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_a_replaced_file_keeps_its_permissions(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    write_image(Picture(PIXELS), path)
    path.chmod(0o640)
    write_image(Picture(PIXELS * 0.5), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert read_image(path).pixels.mean().item() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_any_bytes_may_be_a_name(tmp_path: Path, suffix: str) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfe/\xff" + suffix.encode()))
    write_image(Picture(PIXELS), path)
    assert read_image(path).pixels.mean().item() == pytest.approx(0.4, abs=0.01)
    assert os.listdir(path.parent) == [path.name]


def test_picture_checks_its_fields() -> None:
    with pytest.raises(ShapeError, match=r"pixels of shape \(1, 6, 5\)"):
        Picture(PIXELS[:1])
    with pytest.raises(ShapeError, match="pixels"):
        Picture(torch.zeros(3, 0, 5))
    with pytest.raises(DtypeError, match=r"torch\.float64"):
        Picture(PIXELS.double())
    with pytest.raises(ShapeError, match="equal heights and widths"):
        Picture(PIXELS, torch.zeros(1, 5, 6))
    with pytest.raises(RangeError, match="bit depth 12"):
        Picture(PIXELS, bit_depth=12)
