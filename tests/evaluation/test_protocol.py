from __future__ import annotations

from pathlib import Path

import pytest
import torch
from colour_profiles import DISPLAY_P3

from serpent_ir.errors import ImageReadError
from serpent_ir.evaluation import read_pair
from serpent_ir.images import Picture, content_hash, decode_pixels, read_image, write_image
from serpent_ir.restoration import Degrader


def test_clean_is_the_file_and_degraded_is_the_task(photographs: Path) -> None:
    degrader = Degrader("deblur", seed=5)
    pair = read_pair(photographs, "below/b.png", degrader, quantized=False)
    picture = read_image(photographs / "below/b.png")
    torch.testing.assert_close(pair.clean, picture.pixels, rtol=0, atol=0)
    expected = degrader.degrade_picture(picture, "below/b.png").pixels
    torch.testing.assert_close(pair.degraded, expected, rtol=0, atol=0)


def test_noise_follows_from_seed_and_name(photographs: Path) -> None:
    def degraded(name: str, seed: int) -> torch.Tensor:
        return read_pair(photographs, name, Degrader("deblur", seed), quantized=False).degraded

    first = degraded("a.png", 0)
    degraded("c.png", 0)
    torch.testing.assert_close(degraded("a.png", 0), first, rtol=0, atol=0)
    assert (degraded("a.png", 1) - first).std() > 0.05
    (photographs / "renamed.png").write_bytes((photographs / "a.png").read_bytes())
    assert (degraded("renamed.png", 0) - first).std() > 0.05


def test_quantized_is_what_a_file_would_hold(photographs: Path) -> None:
    degrader = Degrader("deblur", noise_sigma=0.5)
    raw = read_pair(photographs, "a.png", degrader, quantized=False).degraded
    rounded = read_pair(photographs, "a.png", degrader, quantized=True).degraded
    assert raw.min() < 0 and raw.max() > 1
    torch.testing.assert_close(rounded, raw.clamp(0, 1).mul(255).round().div(255), rtol=0, atol=1e-7)


def test_unreadable_file(photographs: Path) -> None:
    (photographs / "empty.png").touch()
    with pytest.raises(ImageReadError, match="empty"):
        read_pair(photographs, "empty.png", Degrader(), quantized=False)


def test_content_hash_is_that_of_the_decoded_file(photographs: Path) -> None:
    pair = read_pair(photographs, "a.png", Degrader(), quantized=False)
    assert pair.content_hash == content_hash(pair.clean.mul(255).round().byte())


def test_super_resolution_is_quantized_before_it_is_enlarged(photographs: Path) -> None:
    pair = read_pair(photographs, "a.png", Degrader("sr4"), quantized=True)
    assert pair.damaged.shape == (3, 6, 10) and pair.degraded.shape == pair.clean.shape == (3, 24, 37)
    levels = 255 * pair.damaged
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    assert (255 * pair.degraded - (255 * pair.degraded).round()).abs().max() > 0.1


def test_holes_come_with_their_mask(photographs: Path) -> None:
    pair = read_pair(photographs, "a.png", Degrader("inpaint"), quantized=True)
    assert pair.degraded.shape == (4, 24, 37) and set(pair.degraded[3].unique().tolist()) == {0.0, 1.0}


def test_a_gray_picture_stays_gray(photographs: Path) -> None:
    write_image(Picture(torch.full((3, 20, 20), 0.5), gray=True), photographs / "gray.png")
    degraded = read_pair(photographs, "gray.png", Degrader("deblur"), quantized=False).degraded
    assert degraded.std() > 0.02 and torch.equal(degraded[0], degraded[1]) and torch.equal(degraded[0], degraded[2])


def test_a_photograph_of_another_profile_is_known_by_the_samples_of_its_file(photographs: Path) -> None:
    """As training data are; the image itself is sRGB, within [0, 1]."""
    pixels = torch.tensor([-0.5116, 1.0183, -0.3107]).reshape(3, 1, 1).expand(3, 20, 20).contiguous()
    write_image(Picture(pixels, metadata={"icc-profile-data": DISPLAY_P3}), photographs / "p3.png")
    pair = read_pair(photographs, "p3.png", Degrader("deblur"), quantized=False)
    content = (photographs / "p3.png").read_bytes()
    assert pair.content_hash == content_hash(decode_pixels(content, "p3.png"))
    assert pair.clean[:, 0, 0].tolist() == pytest.approx([0, 1, 0], abs=0.02)
    assert pair.clean.min() >= 0 and pair.clean.max() <= 1
