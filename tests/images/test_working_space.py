"""Pictures of other colour profiles are sRGB inside, and come back as they were."""

from __future__ import annotations

from pathlib import Path

import colour_profiles as make
import numpy as np
import pytest
import pyvips
import torch
from PIL import Image

from serpent_ir.errors import ImageWriteError
from serpent_ir.images import Picture, decode_pixels, read_image, write_image


def save(samples: np.ndarray, path: Path, profile: bytes | None = None) -> None:
    """A PNG file, or a TIFF file of floats; without our code."""
    deep = samples.dtype == np.uint16
    kind = ("rgb16" if deep else "srgb") if samples.shape[2] >= 3 else ("grey16" if deep else "b-w")
    image = pyvips.Image.new_from_array(samples).copy(interpretation=kind)
    if profile is not None:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    image.write_to_file(str(path))


def stored(path: Path) -> np.ndarray:
    samples = pyvips.Image.new_from_buffer(path.read_bytes(), "").numpy()
    return samples.reshape(*samples.shape[:2], -1)


def stress(bits: int, channels: int) -> np.ndarray:
    """(60, 100, channels): all kinds of colours, many of them black or full in some channel, or dark in it."""
    random, maximum = np.random.default_rng(0), 2**bits - 1
    samples = random.integers(0, maximum + 1, (60, 100, channels))
    chosen = random.random(samples.shape)
    samples = np.where(chosen < 0.2, random.choice([0, 1, 2, maximum - 1, maximum], samples.shape), samples)
    samples = np.where((chosen > 0.2) & (chosen < 0.4), samples // 100, samples)
    return samples.astype(np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize(
    ("content", "channels", "largest"),
    [
        (make.DISPLAY_P3, 3, 0),
        (make.ADOBE_RGB, 3, 50),  # where a channel is below 1 % beside bright ones, where float32 has no more
        (make.PROPHOTO_RGB, 3, 12),
        (make.GRAY_GAMMA, 1, 0),
        (make.GRAY_DOT_GAIN, 1, 0),
    ],
)
def test_untouched_pictures_do_not_shift(tmp_path: Path, content: bytes, channels: int, largest: int) -> None:
    """8 bits: exactly as they were. 16 bits: within 1 of 65535 where no channel is below 1 %, else within `largest`."""
    for bits in (8, 16):
        samples = stress(bits, channels)
        save(samples, tmp_path / "in.png", content)
        picture = read_image(tmp_path / "in.png")
        assert any("converted" in note for note in picture.notes)
        write_image(picture, tmp_path / "out.png")
        again = stored(tmp_path / "out.png")
        assert again.dtype == samples.dtype
        difference = np.abs(again.astype(int) - samples)
        if bits == 8:
            assert difference.max() == 0
        else:
            bright = (samples > 655).all(axis=2)
            assert difference[bright].max() <= 1 and difference.max() <= largest


def test_colours_beyond_srgb_are_kept(tmp_path: Path) -> None:
    """The green of Display P3 in sRGB; from its primaries by hand: linear (-0.2249, 1.0421, -0.0786)."""
    save(np.full((2, 2, 3), (0, 255, 0), np.uint8), tmp_path / "in.png", make.DISPLAY_P3)
    picture = read_image(tmp_path / "in.png")
    assert picture.pixels[:, 0, 0].tolist() == pytest.approx([-0.5116, 1.0183, -0.3107], abs=2e-3)
    assert picture.metadata["icc-profile-data"] == make.DISPLAY_P3
    write_image(picture, tmp_path / "out.tif")
    assert stored(tmp_path / "out.tif")[0, 0].tolist() == [0, 255, 0]


def test_gray_is_gray_and_light(tmp_path: Path) -> None:
    """Linear 0.5 is 0.7354 in sRGB."""
    save(np.full((2, 3, 2), 32768, np.uint16), tmp_path / "in.png", make.profile(make.LINEAR))
    picture = read_image(tmp_path / "in.png")
    assert picture.gray and picture.pixels.unique().tolist() == pytest.approx([0.7354], abs=1e-4)
    assert picture.alpha is not None and picture.alpha.unique().tolist() == pytest.approx([0.5], abs=1e-4)


def test_floats_with_a_profile_keep_what_lies_beyond(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 2, (7, 9, 4)).astype(np.float32)
    save(samples, tmp_path / "in.tif", make.DISPLAY_P3)
    picture = read_image(tmp_path / "in.tif")
    assert picture.pixels.max() > 1.5 and picture.pixels.min() < -0.5
    write_image(picture, tmp_path / "out.tif")
    assert np.abs(stored(tmp_path / "out.tif") - samples).max() < 5e-6


@pytest.mark.parametrize("content", [None, make.SRGB_TABLE, make.TABLES])
def test_srgb_and_tables_are_left_as_coded(tmp_path: Path, content: bytes | None) -> None:
    samples = stress(8, 3)
    save(samples, tmp_path / "in.png", content)
    picture = read_image(tmp_path / "in.png")
    assert torch.equal(picture.pixels.mul(255).round().byte(), torch.from_numpy(samples).permute(2, 0, 1))
    assert torch.equal(picture.pixels, decode_pixels((tmp_path / "in.png").read_bytes(), "in").float() / 255)
    assert picture.metadata.get("icc-profile-data") == content
    assert picture.notes == (
        ()
        if content is not make.TABLES
        else (
            "its colour profile is made of tables, or has a curve that does not rise; its values were taken as if they"
            " were sRGB",
        )
    )


@pytest.mark.parametrize("content", [make.GRAY_GAMMA, b"rubbish" * 30, make.DISPLAY_P3[:-3]])
def test_profiles_that_do_not_fit_are_left_out_and_said(tmp_path: Path, content: bytes) -> None:
    samples = stress(8, 3)
    Image.fromarray(samples).save(tmp_path / "in.tif", icc_profile=content)  # libvips would leave them out
    picture = read_image(tmp_path / "in.tif")
    assert "icc-profile-data" not in picture.metadata and "was left out" in picture.notes[0]
    assert torch.equal(picture.pixels.mul(255).round().byte(), torch.from_numpy(samples).permute(2, 0, 1))


def test_a_profile_that_does_not_fit_is_not_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture = Picture(torch.full((3, 4, 5), 0.4), gray=True, metadata={"icc-profile-data": make.DISPLAY_P3})
    write_image(picture, tmp_path / "out.png")
    assert "colour profile" in caplog.text
    assert stored(tmp_path / "out.png")[0, 0].tolist() == [102]


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif", ".tif"])
def test_every_format_has_the_profile_and_its_values(tmp_path: Path, suffix: str) -> None:
    save(np.full((16, 16, 3), (20, 200, 30), np.uint8), tmp_path / "in.png", make.ADOBE_RGB)
    write_image(read_image(tmp_path / "in.png"), tmp_path / f"out{suffix}")
    assert np.abs(stored(tmp_path / f"out{suffix}").astype(int) - (20, 200, 30)).max() <= (2 if suffix == ".jpg" else 0)
    assert read_image(tmp_path / f"out{suffix}").metadata["icc-profile-data"] == make.ADOBE_RGB


def test_numbers_that_are_not_finite_are_refused_before_they_are_converted() -> None:
    pixels = torch.full((3, 2, 2), float("nan"))
    with pytest.raises(ImageWriteError, match="not finite"):
        write_image(Picture(pixels, metadata={"icc-profile-data": make.DISPLAY_P3}), "never.png")
