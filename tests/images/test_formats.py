"""Kinds of files that others write, read by us and by Pillow or libvips alone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image, ImageCms

from serpent_ir.errors import ImageReadError
from serpent_ir.images import Picture, decode_picture, decode_pixels, encode_picture, read_image, write_image


def random_samples(height: int, width: int, bands: int, dtype: type = np.uint8) -> np.ndarray:
    random = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return random.uniform(-1, 3, (height, width, bands)).astype(dtype)
    return random.integers(0, np.iinfo(dtype).max, (height, width, bands), dtype, endpoint=True)


def vips(samples: np.ndarray, interpretation: str) -> pyvips.Image:
    return pyvips.Image.new_from_array(samples).copy(interpretation=interpretation)


def planes(samples: np.ndarray, maximum: float) -> torch.Tensor:
    return torch.from_numpy(samples.astype(np.float64) / maximum).float().permute(2, 0, 1)


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_floating_point_is_taken_as_it_is(tmp_path: Path, bands: int) -> None:
    samples = random_samples(5, 7, bands, np.float32)
    vips(samples, "b-w" if bands <= 2 else "scrgb").tiffsave(str(tmp_path / "in.tif"), compression="lzw")
    picture = read_image(tmp_path / "in.tif")
    colours = 1 if bands <= 2 else 3
    assert (picture.bit_depth, picture.gray) == (32, bands <= 2)
    assert torch.equal(picture.pixels[:colours], planes(samples, 1)[:colours])
    assert (picture.alpha is not None) == (bands in (2, 4)) and "its values lie between" in picture.notes[0]
    write_image(picture, tmp_path / "out.tif")
    assert np.array_equal(
        np.asarray(pyvips.Image.new_from_file(str(tmp_path / "out.tif"))).reshape(samples.shape), samples
    )
    rounded = decode_pixels((tmp_path / "in.tif").read_bytes(), "in").float()
    assert torch.equal(rounded, picture.pixels.clamp(0, 1).mul(255).round())


@pytest.mark.parametrize("bands", [1, 3])
def test_integers_of_32_bits(tmp_path: Path, bands: int) -> None:
    samples = random_samples(5, 7, bands, np.uint32)
    content = vips(samples, "b-w" if bands == 1 else "srgb").tiffsave_buffer()
    picture = decode_picture(content, "deep")
    assert picture.bit_depth == 32
    assert (picture.pixels[:bands] - planes(samples, 2**32 - 1)).abs().max() < 1e-7


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    samples = np.zeros((4, 4, 3), np.float32)
    samples[1, 2, 0] = value
    content = vips(samples, "scrgb").tiffsave_buffer()
    for decode in (decode_picture, decode_pixels):
        with pytest.raises(ImageReadError, match=r"deep\.tif holds numbers that are not finite"):
            decode(content, "deep.tif")


@pytest.mark.parametrize(
    ("samples", "interpretation", "reason"),
    [
        (np.zeros((4, 4, 3), np.int16), "srgb", "short samples"),
        (np.zeros((4, 4, 3), np.float64), "srgb", "samples of a kind that is not read"),
        (np.zeros((4, 4, 5), np.uint8), "srgb", "5 channels"),
        (np.zeros((4, 4, 3), np.float32), "lab", "colour space lab"),
        (np.zeros((4, 4, 4), np.float32), "cmyk", "float samples of CMYK"),
    ],
)
def test_what_is_refused_by_name(samples: np.ndarray, interpretation: str, reason: str) -> None:
    with pytest.raises(ImageReadError, match=reason):
        decode_picture(vips(samples, interpretation).tiffsave_buffer(), "science.tif")


@pytest.mark.parametrize(
    "options",
    [
        {"tile": True, "tile_width": 16, "tile_height": 32},
        {"tile": True, "tile_width": 64, "tile_height": 64, "pyramid": True},
        {"tile": True, "pyramid": True, "tile_width": 64, "tile_height": 64, "subifd": True},
        {"compression": "lzw", "predictor": "horizontal"},
        {"bigtiff": True},
        {"compression": "none"},
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_layouts_of_tiff(options: dict[str, object], dtype: type) -> None:
    samples = random_samples(90, 70, 3, dtype)
    image = vips(samples, "srgb" if dtype is np.uint8 else "rgb16")
    picture = decode_picture(image.tiffsave_buffer(**options), "tiled")
    assert torch.equal(picture.pixels, planes(samples, np.iinfo(dtype).max))
    several = options.get("pyramid") and not options.get("subifd")
    assert len(picture.notes) == (1 if several else 0)


@pytest.mark.parametrize(
    ("suffix", "mode"), [("PNG", "P"), ("GIF", "P"), ("TIFF", "P"), ("PNG", "1"), ("TIFF", "1"), ("PNG", "LA")]
)
def test_palettes_and_few_bits_as_pillow_reads_them(suffix: str, mode: str) -> None:
    image = Image.fromarray(random_samples(9, 14, 3)).convert(mode)
    file = io.BytesIO()
    image.save(file, suffix)
    with Image.open(io.BytesIO(file.getvalue())) as again:
        expected = np.asarray(again.convert("RGB"))
    assert torch.equal(decode_picture(file.getvalue(), "few").pixels, planes(expected, 255))


@pytest.mark.parametrize("suffix", ["GIF", "WEBP", "TIFF"])
def test_of_several_pages_the_first_is_read(suffix: str) -> None:
    frames = [Image.new("RGB", (6, 5), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    file = io.BytesIO()
    frames[0].save(
        file, suffix, save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == "WEBP" else {})
    )
    picture = decode_picture(file.getvalue(), "several")
    assert picture.notes == ("the first of 3 pages was read",)
    assert picture.pixels.mul(255).round()[:, 2, 2].tolist() == [250, 0, 0]


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk_tiff_as_little_cms_shows_it(dtype: type, alpha: bool) -> None:
    inks = random_samples(20, 30, 5 if alpha else 4) // 2
    deep = inks.astype(dtype) * (1 if dtype is np.uint8 else 257)
    image = vips(deep, "cmyk")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", pyvips.Operation.call("profile_load", "cmyk"))
    picture = decode_picture(image.tiffsave_buffer(), "print.tif")
    assert (picture.bit_depth, picture.gray) == (8 if dtype is np.uint8 else 16, False)
    assert picture.notes == ("converted from CMYK to sRGB",) and "icc-profile-data" not in picture.metadata
    check_inks(picture, inks)
    assert (picture.alpha is not None) == alpha
    if picture.alpha is not None:
        assert torch.equal(picture.alpha, planes(inks[..., 4:], 255))


def test_cmyk_jpeg_as_little_cms_shows_it() -> None:
    rows, columns = np.mgrid[0:40, 0:60]
    inks = np.stack([rows * 3, columns * 2, 100 - rows, columns], axis=2).astype(np.uint8)
    profile = pyvips.Operation.call("profile_load", "cmyk")
    file = io.BytesIO()
    # as Pillow and Adobe's programs write it, with inverted inks
    Image.frombytes("CMYK", (60, 40), inks.tobytes()).save(file, "JPEG", quality=100, icc_profile=profile)
    check_inks(decode_picture(file.getvalue(), "print.jpg"), inks)


def check_inks(picture: Picture, inks: np.ndarray) -> None:
    source = Image.frombytes("CMYK", inks.shape[1::-1], inks[..., :4].tobytes())
    profile = io.BytesIO(pyvips.Operation.call("profile_load", "cmyk"))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    theirs = ImageCms.profileToProfile(source, profile, ImageCms.createProfile("sRGB"), intent, outputMode="RGB")
    difference = (picture.pixels.mul(255) - torch.from_numpy(np.array(theirs)).permute(2, 0, 1)).abs()
    assert difference.max() <= 6 and difference.mean() < 1


@pytest.mark.parametrize("bits", [10, 12])
def test_avif_of_more_than_8_bits(bits: int) -> None:
    """White is the largest number of so many bits."""
    maximum = 2**bits - 1
    samples = np.random.default_rng(0).integers(0, maximum + 1, (9, 11, 3)).astype(np.uint16)
    samples[0, 0] = maximum
    content = vips(samples << (16 - bits), "rgb16").heifsave_buffer(compression="av1", lossless=True, bitdepth=bits)
    picture = decode_picture(content, "deep.avif")
    assert picture.bit_depth == 16
    assert (picture.pixels - planes(samples, maximum)).abs().max() < 1e-6
    if bits == 12:
        assert torch.equal(decode_picture(encode_picture(picture, ".avif"), "again").pixels, picture.pixels)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "a.avif"])
def test_bytes_are_read_as_the_file_is(tmp_path: Path, name: str) -> None:
    image = vips(random_samples(12, 9, 3), "srgb")
    image.set_type(pyvips.GValue.gstr_type, "exif-ifd0-Make", "Serpent")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", pyvips.Operation.call("profile_load", "p3"))
    image.set_type(pyvips.GValue.gint_type, "orientation", 1 if name.endswith("avif") else 6)
    image.write_to_file(str(tmp_path / name))
    read, decoded = read_image(tmp_path / name), decode_picture((tmp_path / name).read_bytes(), name)
    assert read.pixels.shape == ((3, 12, 9) if name.endswith("avif") else (3, 9, 12))
    assert torch.equal(read.pixels, decoded.pixels)
    assert read.metadata == decoded.metadata and read.notes == decoded.notes and len(read.notes) == 1
    assert (read.bit_depth, read.gray) == (decoded.bit_depth, decoded.gray)
