from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serpent_ir import tasks
from serpent_ir.errors import UnknownNameError
from serpent_ir.images import Picture
from serpent_ir.restoration import Degrader
from serpent_ir.restoration.degrader import seed_of

PICTURE = Picture(torch.full((3, 40, 30), 0.5), torch.rand(1, 40, 30), 16, metadata={"xres": 3.0})


def test_the_name_and_the_seed_decide() -> None:
    first = Degrader("deblur", 7).degrade_picture(PICTURE, "a/b.png")
    Degrader("deblur", 7).degrade_picture(PICTURE, "other.png")
    again = Degrader("deblur", 7).degrade_picture(PICTURE, "a/b.png")
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, Degrader("deblur", 8).degrade_picture(PICTURE, "a/b.png").pixels)
    assert not torch.equal(first.pixels, Degrader("deblur", 7).degrade_picture(PICTURE, "a/c.png").pixels)


def test_convention_seed_of_a_name() -> None:
    """Pinned: degraded test sets must stay the same from version to version (first 63 bits of SHA-256)."""
    assert seed_of(0, "a.png") == 5866156135541576447
    assert 0 <= seed_of(-5, "ä/b.png") < 2**63


def test_it_is_the_task_and_the_rest_of_the_picture_stays() -> None:
    degraded = Degrader("deblur", 0, noise_sigma=0.1).degrade_picture(PICTURE, "a.png")
    generator = torch.Generator().manual_seed(seed_of(0, "a.png"))
    assert torch.equal(degraded.pixels, tasks.create("deblur", noise_sigma=0.1)(PICTURE.pixels[None], generator)[0])
    assert degraded.alpha is PICTURE.alpha and degraded.metadata == PICTURE.metadata and degraded.bit_depth == 16
    assert (degraded.pixels - PICTURE.pixels).std().item() == pytest.approx(0.1, rel=0.1)


def test_gray_gets_the_noise_of_one_channel() -> None:
    degraded = Degrader("deblur", 0, noise_sigma=0.1).degrade_picture(Picture(PICTURE.pixels, gray=True), "a.png")
    assert torch.equal(degraded.pixels[0], degraded.pixels[1]) and torch.equal(degraded.pixels[0], degraded.pixels[2])
    assert (degraded.pixels[0] - 0.5).std().item() == pytest.approx(0.1, rel=0.1)


def test_super_resolution_gives_the_small_picture() -> None:
    damaged = Degrader("sr4", 0, noise_sigma=0).degrade_picture(PICTURE, "a.png")
    assert damaged.pixels.shape == (3, 10, 8) and damaged.bit_depth == 16
    assert damaged.alpha is not None and damaged.alpha.shape == (1, 10, 8)
    small = tasks.Downscale(4)(PICTURE.alpha[None])[0]  # type: ignore[index]
    torch.testing.assert_close(damaged.alpha, small.clamp(0, 1))


def test_what_is_missing_is_transparent() -> None:
    degrader = Degrader("inpaint", 3, missing=0.3)
    damaged = degrader.damage(PICTURE, "a.png")
    holed = degrader.degrade_picture(PICTURE, "a.png")
    missing = damaged[3] == 1
    assert 0.2 < missing.float().mean() < 0.4 and holed.alpha is not None and PICTURE.alpha is not None
    assert (holed.pixels[:, missing] == 0).all() and (holed.pixels[:, ~missing] == 0.5).all()
    assert torch.equal(holed.alpha[0], PICTURE.alpha[0] * ~missing)
    gray = degrader.degrade_picture(Picture(PICTURE.pixels, gray=True), "a.png")
    assert (
        gray.alpha is not None and torch.equal(gray.alpha[0] == 0, missing) and torch.equal(gray.pixels, holed.pixels)
    )


def test_a_degradation_or_a_file_for_the_task(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('[{"operator": "gaussian_noise", "sigma": 0.1}]')
    expected = Degrader("denoise", 0, sigma=25.5).damage(PICTURE, "a.png")
    for task in (str(tmp_path / "mine.json"), tasks.load_task(tmp_path / "mine.json")):
        degrader = Degrader(task)
        assert degrader.operator.name == "mine"
        assert torch.equal(degrader.damage(PICTURE, "a.png"), expected)


def test_unknown_task_and_option() -> None:
    with pytest.raises(UnknownNameError):
        Degrader("unbake")
    with pytest.raises(UnknownNameError):
        Degrader("deblur", 0, temperature=180)
