from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import pyvips
import torch
from written_files import digests

from serpent_ir.errors import DtypeError, ImageWriteError, RangeError, ShapeError, UnknownNameError
from serpent_ir.images import OutputOptions, Picture, decode_picture, encode_picture, read_image, write_image
from serpent_ir.images.folder import ALPHA_SUFFIXES, WRITABLE_SUFFIXES
from serpent_ir.images.write import SAVERS

PIXELS = torch.full((3, 6, 5), 0.4)


def test_failure_while_saving_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    write_image(Picture(PIXELS), path)
    old = path.read_bytes()

    def half_then_fail(temporary: Path, content: bytes) -> None:
        with temporary.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    def fail(image: pyvips.Image, target: pyvips.Target) -> None:
        raise pyvips.Error("cannot save", "out of order")

    for place, name, failing, reason in (
        (Path, "write_bytes", half_then_fail, r"No space left on device"),
        (pyvips.Image, "pngsave_target", fail, "out of order"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, failing, raising=False)
            with pytest.raises(ImageWriteError, match=rf"picture\.png cannot be written.*{reason}"):
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


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif"])
def test_a_replaced_file_keeps_its_permissions(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    write_image(Picture(PIXELS), path)
    path.chmod(0o640)
    write_image(Picture(PIXELS * 0.5), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert read_image(path).pixels.mean().item() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif"])
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


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize(
    ("suffix", "read"),
    [
        (".png", {8: 8, 16: 16, 32: 16}),
        (".tif", {8: 8, 16: 16, 32: 32}),
        (".jpg", {8: 8, 16: 8, 32: 8}),
        (".webp", {8: 8, 16: 8, 32: 8}),
        (".avif", {8: 8, 16: 16, 32: 16}),
    ],
)
def test_bit_depth_follows_the_picture_unless_told(suffix: str, read: dict[int, int], bits: int) -> None:
    """Where the format has none so deep, the next one below."""
    kept = encode_picture(Picture(PIXELS, bit_depth=bits), suffix)
    assert decode_picture(kept, "kept").bit_depth == read[bits]
    other = 8 if bits == 32 else 32
    told = encode_picture(Picture(PIXELS, bit_depth=other), suffix, OutputOptions(bit_depth=bits))
    assert told == kept


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_quality(suffix: str) -> None:
    picture = Picture(torch.rand(3, 40, 50).mul(255).round() / 255)
    files = [encode_picture(picture, suffix, OutputOptions(quality=quality)) for quality in (20, 80, 100)]
    assert len(files[0]) < len(files[1]) < len(files[2])
    errors = [(decode_picture(file, "a").pixels - picture.pixels).square().mean() for file in files]
    assert errors[0] > errors[1] > errors[2]
    usual = encode_picture(picture, suffix)
    if suffix == ".jpg":
        assert usual == encode_picture(picture, suffix, OutputOptions(quality=95))
    else:
        assert torch.equal(decode_picture(usual, "a").pixels, picture.pixels)


def test_quality_changes_nothing_without_loss() -> None:
    for suffix in (".png", ".tif"):
        assert encode_picture(Picture(PIXELS), suffix, OutputOptions(quality=1)) == encode_picture(
            Picture(PIXELS), suffix
        )


def test_format_and_name(tmp_path: Path) -> None:
    assert tuple(SAVERS) == WRITABLE_SUFFIXES
    assert tuple(suffix for suffix, saver in SAVERS.items() if saver.alpha) == ALPHA_SUFFIXES
    png = OutputOptions(suffix=".png")
    write_image(Picture(PIXELS), tmp_path / "picture.part", png)
    assert (tmp_path / "picture.part").read_bytes() == encode_picture(Picture(PIXELS), ".png")
    write_image(Picture(PIXELS), tmp_path / "picture.PNG", png)
    write_image(Picture(PIXELS), tmp_path / "picture.tiff", OutputOptions(suffix=".tif"))
    with pytest.raises(ImageWriteError, match=r"picture\.jpg cannot be written: .*says \.jpg.*asked for is \.png"):
        write_image(Picture(PIXELS), tmp_path / "picture.jpg", png)
    with pytest.raises(ImageWriteError, match=r"cannot write the format '\.gif'"):
        encode_picture(Picture(PIXELS), ".gif")
    assert sorted(os.listdir(tmp_path)) == ["picture.PNG", "picture.part", "picture.tiff"]


def test_options_check_their_fields() -> None:
    with pytest.raises(UnknownNameError, match=r"format 'png'; expected one of \.png"):
        OutputOptions(suffix="png")
    for quality in (0, 101):
        with pytest.raises(RangeError, match=f"quality {quality}; expected 1 to 100"):
            OutputOptions(quality=quality)
    with pytest.raises(RangeError, match="bit depth 12"):
        OutputOptions(bit_depth=12)


def test_equal_pictures_give_equal_bytes() -> None:
    """Twice here, and at another time in another process."""
    first = digests()
    program = [sys.executable, str(Path(__file__).parent.parent / "written_files.py")]
    other = subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()
    assert first == digests() == other and len(set(first)) > 10
    before = pyvips.vips_lib.vips_concurrency_get()
    try:
        for threads in (1, 3):  # of libvips, as worker processes have them
            pyvips.vips_lib.vips_concurrency_set(threads)
            assert digests() == first
            assert pyvips.vips_lib.vips_concurrency_get() == threads
    finally:
        pyvips.vips_lib.vips_concurrency_set(before)
