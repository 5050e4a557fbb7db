"""Colour profile, EXIF, XMP and resolution travel from the file that is read to the one that is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyvips
from colour_profiles import LINEAR
from colour_profiles import profile as make_profile

from serpent_ir.images import read_image, write_image

XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" tiff:Make="Camera"/>
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"><tiff:Orientation>6</tiff:Orientation></rdf:Description>
</rdf:RDF></x:xmpmeta>"""


def profile(output: str, bands: int = 3) -> bytes:
    """A colour profile that libvips carries."""
    image = pyvips.Image.black(1, 1, bands=bands).copy(interpretation="srgb")
    return image.icc_export(output_profile=output).get("icc-profile-data")


def photograph(path: Path, orientation: int = 1, bands: int = 3, colours: bytes | None = None) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (12, 20, bands)).astype(np.uint8)
    image = pyvips.Image.new_from_array(samples).copy(
        interpretation="srgb" if bands == 3 else "b-w", xres=300 / 25.4, yres=150 / 25.4
    )
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    image.set_type(pyvips.GValue.gstr_type, "exif-ifd0-Make", "Serpent")
    image.set_type(pyvips.GValue.gstr_type, "exif-ifd2-DateTimeOriginal", "2020:01:02 03:04:05")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile("p3") if colours is None else colours)
    image.set_type(pyvips.GValue.blob_type, "xmp-data", XMP)
    image.write_to_file(str(path))


def header(path: Path) -> pyvips.Image:
    return pyvips.Image.new_from_buffer(path.read_bytes(), "")


@pytest.mark.parametrize("output", ["jpg", "png", "tif", "webp", "avif"])
@pytest.mark.parametrize("source", ["jpg", "png", "webp"])
def test_metadata_is_carried_over(tmp_path: Path, source: str, output: str) -> None:
    photograph(tmp_path / f"in.{source}", orientation=6)
    picture = read_image(tmp_path / f"in.{source}")
    assert (picture.height, picture.width) == (20, 12)
    write_image(picture, tmp_path / f"out.{output}")
    written = header(tmp_path / f"out.{output}")

    assert written.get("icc-profile-data") == profile("p3")
    xmp = written.get("xmp-data")
    assert b'tiff:Orientation="1"' in xmp and b"<tiff:Orientation>1<" in xmp and b'tiff:Make="Camera"' in xmp
    assert not written.get_typeof("orientation") or written.get("orientation") == 1
    if output != "tif":  # see test_tiff.py
        assert written.get("exif-ifd0-Make").startswith("Serpent")
        assert written.get("exif-ifd2-DateTimeOriginal").startswith("2020:01:02 03:04:05")
        if output != "avif":  # whose orientation is elsewhere
            assert written.get("exif-ifd0-Orientation").startswith("1 ")
        assert written.get("exif-ifd2-PixelXDimension").startswith("12 ")
        assert written.get("exif-ifd2-PixelYDimension").startswith("20 ")
    again = read_image(tmp_path / f"out.{output}")
    assert again.pixels.shape == picture.pixels.shape


@pytest.mark.parametrize(("orientation", "expected"), [(1, (300, 150)), (6, (150, 300))])
def test_resolution_turns_with_the_picture(tmp_path: Path, orientation: int, expected: tuple[int, int]) -> None:
    photograph(tmp_path / "in.tif", orientation)
    write_image(read_image(tmp_path / "in.tif"), tmp_path / "out.tif")
    written = header(tmp_path / "out.tif")
    assert (written.xres * 25.4, written.yres * 25.4) == pytest.approx(expected, abs=0.1)


LINEAR_GRAY = make_profile(LINEAR)


@pytest.mark.parametrize("output", ["jpg", "png", "tif"])
def test_gray_keeps_its_profile_where_gray_can_be_written(tmp_path: Path, output: str) -> None:
    photograph(tmp_path / "in.png", bands=1, colours=LINEAR_GRAY)
    picture = read_image(tmp_path / "in.png")
    assert picture.gray
    write_image(picture, tmp_path / f"out.{output}")
    written = header(tmp_path / f"out.{output}")
    assert written.bands == 1
    assert written.get("icc-profile-data") == LINEAR_GRAY


@pytest.mark.parametrize("output", ["webp", "avif"])
def test_gray_profile_becomes_srgb_in_formats_without_gray(tmp_path: Path, output: str) -> None:
    """Linear gray 0.5 is 188 of 255 in sRGB; the gray profile would be invalid in a file of three channels."""
    image = pyvips.Image.new_from_array(np.full((8, 8), 128, np.uint8)).copy(interpretation="b-w")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", LINEAR_GRAY)
    image.pngsave(str(tmp_path / "in.png"))
    write_image(read_image(tmp_path / "in.png"), tmp_path / f"out.{output}")
    written = header(tmp_path / f"out.{output}")
    assert written.numpy()[4, 4].tolist() == pytest.approx([188] * 3, abs=2)
    assert written.get("icc-profile-data")[16:20] == b"RGB "
