"""Files read and written some rows at a time, against the same at once."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch

from serpent_ir.errors import ImageReadError, ImageWriteError
from serpent_ir.images import OutputOptions, Picture, read_image, write_image
from serpent_ir.images.large import PictureReader, PictureWriter


def picture(bits: int = 8, gray: bool = False, alpha: bool = False, height: int = 60, width: int = 33) -> Picture:
    generator = torch.Generator().manual_seed(bits)
    planes = torch.rand(4, height, width, generator=generator)
    if bits < 32:
        planes = (planes * (2**bits - 1)).round() / (2**bits - 1)
    colours = planes[:1].expand(3, -1, -1).contiguous() if gray else planes[:3]
    metadata = {"icc-profile-data": pyvips.Operation.call("profile_load", "p3")} if not gray else {}
    return Picture(colours, planes[3:] if alpha else None, bits, gray, metadata)


def same(left: Picture, right: Picture) -> bool:
    alphas = [one.alpha for one in (left, right)]
    return (
        torch.equal(left.pixels, right.pixels)
        and (alphas[0] is None) == (alphas[1] is None)
        and (alphas[0] is None or torch.equal(*alphas))  # type: ignore[arg-type]
        and (left.bit_depth, left.gray, left.metadata, left.notes)
        == (right.bit_depth, right.gray, right.metadata, right.notes)
    )


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize(("bits", "suffix"), [(8, ".png"), (16, ".png"), (8, ".tif"), (16, ".tif"), (32, ".tif")])
def test_there_and_back(tmp_path: Path, bits: int, suffix: str, gray: bool, alpha: bool) -> None:
    source, copy, again = (tmp_path / f"{name}{suffix}" for name in ("source", "copy", "again"))
    write_image(picture(bits, gray, alpha), source)
    at_once = read_image(source)
    with PictureReader(source) as reader:
        parts = [reader.read(first, min(first + 13, 60)) for first in range(0, 60, 13)]
        whole = reader.read(0, 60)  # from the beginning again
        overlapping = reader.read(40, 55)
    assert same(whole, at_once)
    assert torch.equal(torch.cat([part.pixels for part in parts], dim=1), at_once.pixels)
    assert torch.equal(overlapping.pixels, at_once.pixels[:, 40:55])
    writer = PictureWriter(copy, tmp_path / "scratch", 60, 33, parts[0])
    for first, part in zip(range(0, 60, 13), parts, strict=True):
        writer.write(first, part)
    writer.finish()
    write_image(at_once, again)
    assert copy.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_other_formats(tmp_path: Path, suffix: str) -> None:
    source, copy, again = (tmp_path / f"{name}{suffix}" for name in ("source", "copy", "again"))
    write_image(picture(), source)
    at_once = read_image(source)
    with PictureReader(source) as reader:
        writer = PictureWriter(copy, tmp_path / "scratch", 60, 33, reader.read(0, 1), OutputOptions(quality=70))
        for first in (0, 25, 50):
            writer.write(first, reader.read(first, min(first + 25, 60)))
    writer.finish()
    write_image(at_once, again, OutputOptions(quality=70))
    assert copy.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "turned.tif"
    samples = np.random.default_rng(0).integers(0, 256, (20, 11, 3), dtype=np.uint8)
    image = pyvips.Image.new_from_array(samples).copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    image.tiffsave(os.fspath(path))
    with PictureReader(path) as reader:
        rows = [reader.read(first, first + 1) for first in range(reader.height)]
    at_once = read_image(path)
    assert (reader.height, reader.width) == (at_once.height, at_once.width)
    assert torch.equal(torch.cat([row.pixels for row in rows], dim=1), at_once.pixels)


def test_exif_comes_along(tmp_path: Path) -> None:
    directory = struct.pack("<HHHI4sI", 1, 0x8298, 2, 4, b"me\0\0", 0)  # one entry: copyright
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory
    source, target = tmp_path / "a.tif", tmp_path / "b.tif"
    write_image(Picture(torch.rand(3, 12, 20), metadata={"exif-data": exif}), source)
    with PictureReader(source) as reader:
        rows = reader.read(0, 12)
    writer = PictureWriter(target, tmp_path / "scratch", 12, 20, rows)
    writer.write(0, rows)
    writer.finish()
    assert b"me\0" in read_image(target).metadata["exif-data"]
    assert read_image(target).metadata["exif-data"] == read_image(source).metadata["exif-data"]


def test_damage_is_found_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    write_image(picture(height=4000, width=100), path)
    path.write_bytes(path.read_bytes()[:-200_000])
    with PictureReader(path) as reader:
        reader.read(0, 10)
        with pytest.raises(ImageReadError, match="truncated or damaged"):
            reader.read(10, 4000)
    with pytest.raises(ImageReadError, match="does not exist"):
        PictureReader(tmp_path / "missing.png")
    with pytest.raises(ImageReadError, match="announces"):
        PictureReader(path, max_pixels=1000)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    see_through = picture(alpha=True)
    writer = PictureWriter(tmp_path / "a.jpg", tmp_path / "scratch", 60, 33, see_through)
    with pytest.raises(ImageWriteError, match="transparency"):
        writer.write(0, see_through)
    with pytest.raises(ImageWriteError, match="suffix"):
        PictureWriter(tmp_path / "a.xyz", tmp_path / "scratch", 60, 33, see_through)
    with pytest.raises(ImageWriteError, match="cannot be written"):
        writer.finish()  # nothing is there
    assert not (tmp_path / "a.jpg").exists()
