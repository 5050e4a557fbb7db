from __future__ import annotations

from pathlib import Path

import colour_profiles as make
import numpy as np
import pytest
import pyvips
import torch

from serpent_ir.errors import ImageReadError
from serpent_ir.images import (
    Picture,
    coded_pixels,
    decode_picture,
    decode_pixels,
    encode_picture,
    encode_pixels,
    image_size,
    read_content,
    read_image,
    write_image,
)


def random_pixels(height: int = 5, width: int = 7) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "deep.png", "deep.tif", "gray.png", "alpha.png"])
def test_decoding_equals_read_image_in_8_bits(tmp_path: Path, name: str) -> None:
    alpha = torch.rand(1, 5, 7) if name.startswith("alpha") else None
    depth = 16 if name.startswith("deep") else 8
    write_image(Picture(torch.rand(3, 5, 7), alpha, depth, gray=name.startswith("gray")), tmp_path / name)
    content, read = read_content(tmp_path / name), read_image(tmp_path / name)
    pixels = decode_pixels(content, name)
    assert pixels.dtype == torch.uint8 and pixels.is_contiguous()
    assert torch.equal(pixels, read.pixels.mul(255).round().byte())
    picture = decode_picture(content, name)
    assert torch.equal(picture.pixels, read.pixels)
    assert (picture.gray, picture.bit_depth, picture.alpha is None) == (read.gray, depth, read.alpha is None)


@pytest.mark.parametrize("content", [None, make.SRGB_TABLE, make.DISPLAY_P3, make.ADOBE_RGB, make.PROPHOTO_RGB])
@pytest.mark.parametrize("gray", [False, True])
def test_coded_pixels_are_those_of_the_file(content: bytes | None, gray: bool) -> None:
    profile = make.GRAY_GAMMA if gray and content is not None else content
    picture = Picture(torch.rand(3, 9, 8), gray=gray, metadata={} if profile is None else {"icc-profile-data": profile})
    file = encode_picture(picture, ".png")
    assert torch.equal(coded_pixels(decode_picture(file, "a")), decode_pixels(file, "a"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decoding_and_size_are_upright(tmp_path: Path, orientation: int) -> None:
    image = pyvips.Image.new_from_array(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    image = image.copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    image.write_to_file(str(tmp_path / "turned.tif"))
    content = read_content(tmp_path / "turned.tif")
    pixels = decode_pixels(content, "turned")
    assert torch.equal(pixels, read_image(tmp_path / "turned.tif").pixels.mul(255).round().byte())
    assert image_size(content, "turned") == tuple(pixels.shape[1:]) == ((5, 4) if orientation >= 5 else (4, 5))


def test_encoding_without_loss() -> None:
    pixels = random_pixels()
    for suffix in (".png", ".webp"):
        content = encode_pixels(pixels, suffix)
        assert torch.equal(decode_pixels(content, suffix), pixels)
        assert encode_pixels(pixels, suffix) == content
    flat = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    difference = decode_pixels(encode_pixels(flat, ".jpg"), "flat").int() - flat.int()
    assert difference.abs().max() <= 1


def test_damage_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode_pixels(random_pixels(40, 50), ".png")
    with pytest.raises(ImageReadError, match=r"half\.png is truncated or damaged"):
        decode_pixels(content[: len(content) // 2], "half.png")
    for rubbish in (b"", b"<svg></svg>"):
        with pytest.raises(ImageReadError, match=r"photo\.png is not an image"):
            decode_pixels(rubbish, "photo.png")
    with pytest.raises(ImageReadError, match="at most 1,999"):
        image_size(content, "large.png", max_pixels=1999)
    monkeypatch.setenv("SERPENT_MAX_PIXELS", "1999")
    with pytest.raises(ImageReadError, match="at most 1,999"):
        decode_pixels(content, "large.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageReadError, match="0 bytes"):
        read_content(tmp_path / "empty.png")
