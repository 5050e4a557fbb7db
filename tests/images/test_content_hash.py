from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from serpent_ir.errors import DtypeError, ShapeError
from serpent_ir.images import Picture, content_hash, read_image, write_image


def pixels(height: int = 5, width: int = 7) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def test_is_the_sha_256_of_shape_and_samples() -> None:
    image = pixels()
    expected = hashlib.sha256(b"5x7:" + bytes(image.flatten().tolist())).hexdigest()[:16]
    assert content_hash(image) == expected
    assert content_hash(image.mT.contiguous().mT) == expected


def test_any_other_image_has_another_one() -> None:
    image = pixels(6, 6)
    changed = image.clone()
    changed[2, 5, 5] ^= 1
    others = [changed, image.flip(0), image.mT, image[:, :5], image.reshape(3, 4, 9)]
    assert len({content_hash(one) for one in [image, *others]}) == 6


def test_the_file_does_not_matter(tmp_path: Path) -> None:
    image = pixels()
    for name in ("a.png", "b.tif", "c.webp"):
        write_image(Picture(image / 255), tmp_path / name)
        decoded = read_image(tmp_path / name).pixels.mul(255).round().byte()
        assert content_hash(decoded) == content_hash(image)


def test_refuses_other_tensors() -> None:
    with pytest.raises(DtypeError, match="uint8"):
        content_hash(torch.rand(3, 5, 5))
    with pytest.raises(ShapeError, match=r"\(3, H, W\)"):
        content_hash(pixels()[:1])
