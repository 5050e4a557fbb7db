from __future__ import annotations

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


def test_unknown_task_and_option() -> None:
    with pytest.raises(UnknownNameError):
        Degrader("unbake")
    with pytest.raises(UnknownNameError):
        Degrader("deblur", 0, temperature=180)
