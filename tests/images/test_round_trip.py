"""What is read and written untouched comes back: exact where the format is lossless, bounded where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import colour_profiles as make
import numpy as np
import pytest
import pyvips
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serpent_ir.errors import ImageWriteError
from serpent_ir.images import Picture, read_image, write_image


@dataclass(frozen=True)
class Row:
    """What becomes of a picture of `bits` in a format: read back it has `read` bits, and no value is off by more than
    `bound`, of values in [0, 1]. gray: a gray picture stays gray."""

    suffix: str
    bits: int
    read: int
    bound: float
    gray: bool = True


HALF_OF_8, HALF_OF_12, HALF_OF_16 = 0.5 / 255, 0.5 / 4095, 0.5 / 65535
TABLE = [
    Row(".png", 8, 8, 0),
    Row(".png", 16, 16, 0),
    Row(".png", 32, 16, HALF_OF_16),
    Row(".tif", 8, 8, 0),
    Row(".tif", 16, 16, 0),
    Row(".tif", 32, 32, 0),
    Row(".webp", 8, 8, 0, gray=False),
    Row(".webp", 16, 8, HALF_OF_8, gray=False),
    Row(".webp", 32, 8, HALF_OF_8, gray=False),
    Row(".avif", 8, 8, 0, gray=False),
    Row(".avif", 16, 16, HALF_OF_12, gray=False),
    Row(".avif", 32, 16, HALF_OF_12, gray=False),
]
"""docs/conventions.md repeats it. JPEG, which has a bound for smooth pictures only, has tests of its own."""

PROFILES = {"none": None, "sRGB": make.SRGB_TABLE, "P3": make.DISPLAY_P3, "gray": make.GRAY_GAMMA}
FLOAT_NOISE = 4e-6
"""Of floats in [-1, 2] through Display P3 and back."""


def random_picture(bits: int, gray: bool, alpha: bool, height: int = 13, width: int = 7) -> Picture:
    random = np.random.default_rng(bits + 2 * gray + alpha)
    maximum = 2**bits - 1

    def plane(channels: int) -> torch.Tensor:
        samples = random.integers(0, maximum + 1, (channels, height, width))
        return torch.from_numpy(samples.astype(np.float32)) / maximum

    pixels = plane(1 if gray else 3).expand(3, -1, -1).contiguous()
    return Picture(pixels, plane(1) if alpha else None, bits, gray)


def stored_samples(path: Path) -> np.ndarray:
    """What lies in the file, (H, W, channels), read by libvips without our code."""
    image = pyvips.Image.new_from_buffer(path.read_bytes(), "")
    return image.numpy().reshape(image.height, image.width, image.bands)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
def test_png_and_tiff_are_exact(tmp_path: Path, suffix: str, bits: int, gray: bool, alpha: bool) -> None:
    picture, path = random_picture(bits, gray, alpha), tmp_path / f"picture{suffix}"
    write_image(picture, path)
    again = read_image(path)
    assert (again.bit_depth, again.gray) == (bits, gray)
    assert torch.equal(again.pixels, picture.pixels)
    assert (again.alpha is not None) == alpha
    if again.alpha is not None and picture.alpha is not None:
        assert torch.equal(again.alpha, picture.alpha)
    stored = stored_samples(path)
    assert stored.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert stored.shape == (13, 7, (1 if gray else 3) + alpha)
    np.testing.assert_array_equal(stored[..., 0], np.rint(picture.pixels[0].numpy() * (2**bits - 1)))


def save(samples: np.ndarray, path: Path, profile: bytes | None) -> None:
    """Integers as PNG and floats as TIFF, without our code."""
    kinds = {np.uint8: ("b-w", "srgb"), np.uint16: ("grey16", "rgb16"), np.float32: ("b-w", "scrgb")}
    image = pyvips.Image.new_from_array(samples)
    image = image.copy(interpretation=kinds[samples.dtype.type][samples.shape[2] > 2])
    if profile is not None:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    image.write_to_file(str(path))


def drawn(bits: int, height: int, width: int, channels: int) -> np.ndarray:
    random = np.random.default_rng(height * 1000 + width + channels)
    if bits == 32:
        return random.uniform(-1, 2, (height, width, channels)).astype(np.float32)
    dtype = np.uint8 if bits == 8 else np.uint16
    return random.integers(0, 2**bits, (height, width, channels)).astype(dtype)


@given(
    row=st.sampled_from(TABLE),
    long=st.integers(1, 257),
    short=st.integers(1, 9),
    tall=st.booleans(),
    gray=st.booleans(),
    alpha=st.booleans(),
    name=st.sampled_from(sorted(PROFILES)),
)
@settings(max_examples=80, deadline=None)
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    row: Row,
    long: int,
    short: int,
    tall: bool,
    gray: bool,
    alpha: bool,
    name: str,
) -> None:
    """A file made by others, read and written: its samples are those of the first, within the bound of the table.

    Where a gray picture becomes one of sRGB, the pixels that are read are compared.
    """
    profile = PROFILES[name] if gray == (name == "gray") else None
    height, width = (long, short) if tall else (short, long)
    samples = drawn(row.bits, height, width, (1 if gray else 3) + alpha)
    folder = tmp_path_factory.getbasetemp()
    source, target = folder / f"source.{'tif' if row.bits == 32 else 'png'}", folder / f"target{row.suffix}"
    save(samples, source, profile)
    picture = read_image(source)
    assert (picture.bit_depth, picture.gray, picture.alpha is not None) == (row.bits, gray, alpha)
    write_image(picture, target)
    again = read_image(target)
    assert (again.bit_depth, again.gray) == (row.read, gray and row.gray)
    assert (again.height, again.width, again.alpha is not None) == (height, width, alpha)

    limit = (-np.inf, np.inf) if row.read == 32 else (0, 1)
    converted = name in ("P3", "gray") and profile is not None
    bound = row.bound + (FLOAT_NOISE if row.bits == 32 or row.bound else 0) * converted + 1e-7 * (row.bound > 0)
    if gray and not row.gray:
        rounding = max(row.bound, HALF_OF_8) if converted else row.bound
        assert (again.pixels - picture.pixels.clamp(0, 1)).abs().max() <= rounding + 1e-7
    else:
        written = stored_samples(target)
        maximum = {8: 255, 16: 65520 if row.suffix == ".avif" else 65535, 32: 1}[row.read]
        before = samples / {8: 255, 16: 65535, 32: 1}[row.bits]
        assert np.abs(written / maximum - before.clip(*limit)).max() <= bound
        if row.bound == 0 and not (converted and row.bits == 32):
            np.testing.assert_array_equal(written, samples)
    if picture.alpha is not None and again.alpha is not None:
        assert (again.alpha - picture.alpha.clamp(*limit)).abs().max() <= row.bound + 1e-7 * (row.bound > 0)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_webp_is_exact_up_to_its_eight_bits(tmp_path: Path, bits: int, gray: bool, alpha: bool) -> None:
    picture, path = random_picture(bits, gray, alpha), tmp_path / "picture.webp"
    write_image(picture, path)
    again = read_image(path)
    assert again.bit_depth == 8
    for stored, original in ((again.pixels, picture.pixels), (again.alpha, picture.alpha)):
        if stored is not None and original is not None:
            assert torch.equal(stored, (original * 255).round() / 255)
    assert (again.alpha is not None) == alpha


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_of_a_smooth_picture_is_close(tmp_path: Path, suffix: str, bits: int, gray: bool) -> None:
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 33), torch.linspace(0, 1, 50), indexing="ij")
    planes = [rows] * 3 if gray else [rows, columns, 1 - rows]
    path = tmp_path / f"picture{suffix}"
    write_image(Picture(torch.stack(planes), None, bits, gray), path)
    again = read_image(path)
    assert (again.bit_depth, again.gray) == (8, gray)
    assert (again.pixels - torch.stack(planes)).abs().max() < 6 / 255


def test_jpeg_does_not_thin_out_colour(tmp_path: Path) -> None:
    """Columns of alternating colour but equal brightness survive 4:4:4 and would be smeared by 4:2:0."""
    pixels = torch.full((3, 16, 16), 0.5)
    pixels[0, :, ::2], pixels[2, :, 1::2] = 0.8, 0.9
    path = tmp_path / "picture.jpg"
    write_image(Picture(pixels), path)
    assert (read_image(path).pixels - pixels).abs().max() < 0.05


def test_jpeg_refuses_transparency_but_takes_opaque_alpha(tmp_path: Path) -> None:
    pixels = torch.full((3, 5, 4), 0.5)
    write_image(Picture(pixels, torch.ones(1, 5, 4)), tmp_path / "opaque.jpg")
    assert read_image(tmp_path / "opaque.jpg").alpha is None
    with pytest.raises(ImageWriteError, match=r"cannot be a JPEG.*Write \.png"):
        write_image(Picture(pixels, torch.full((1, 5, 4), 0.5)), tmp_path / "transparent.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["opaque.jpg"]


def test_colour_below_full_transparency_is_kept(tmp_path: Path) -> None:
    pixels = torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    for suffix in (".png", ".tif", ".webp", ".avif"):
        write_image(Picture(pixels, torch.zeros(1, 6, 5)), tmp_path / f"picture{suffix}")
        assert torch.equal(read_image(tmp_path / f"picture{suffix}").pixels, pixels)


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg", ".avif"])
def test_one_pixel(tmp_path: Path, suffix: str, gray: bool) -> None:
    path = tmp_path / f"picture{suffix}"
    write_image(Picture(torch.full((3, 1, 1), 0.6), gray=gray), path)
    torch.testing.assert_close(read_image(path).pixels, torch.full((3, 1, 1), 153 / 255), rtol=0, atol=2 / 255)


def test_a_changed_file_is_not_served_from_a_cache(tmp_path: Path) -> None:
    for suffix in (".png", ".tif", ".webp"):
        path = tmp_path / f"picture{suffix}"
        for value in (0.0, 1.0, 0.2):
            write_image(Picture(torch.full((3, 4, 4), value)), path)
            assert read_image(path).pixels.unique().tolist() == pytest.approx([value])


def test_values_are_clipped_and_rounded_to_nearest(tmp_path: Path) -> None:
    pixels = torch.tensor([-0.2, 0.0, 100.4 / 255, 100.6 / 255, 1.0, 1.7]).expand(3, 1, 6).contiguous()
    path = tmp_path / "picture.png"
    write_image(Picture(pixels), path)
    assert stored_samples(path)[0, :, 0].tolist() == [0, 0, 100, 101, 255, 255]


def test_gray_is_written_as_the_mean_of_the_channels(tmp_path: Path) -> None:
    pixels = torch.tensor([30.0, 60.0, 120.0]).div(255).reshape(3, 1, 1).expand(3, 2, 3).contiguous()
    path = tmp_path / "picture.png"
    write_image(Picture(pixels, gray=True), path)
    assert stored_samples(path).tolist() == [[[70]] * 3] * 2
