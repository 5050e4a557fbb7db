"""`restore`: every form in which an image may come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from serpent_ir.errors import DtypeError, RangeError, ShapeError
from serpent_ir.images import Picture, write_image
from serpent_ir.restoration import restore
from serpent_ir.restoration.pixels import to_pixels

SAMPLES = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
PIXELS = torch.from_numpy(SAMPLES.astype(np.float32)).permute(2, 0, 1) / 255


@pytest.mark.parametrize(
    "image",
    [
        SAMPLES,
        np.ascontiguousarray(SAMPLES.transpose(2, 0, 1)),
        SAMPLES.transpose(2, 0, 1),
        SAMPLES[::-1][::-1],
        SAMPLES.astype(np.uint16) * 257,
        SAMPLES / 255,
        SAMPLES.astype(np.float32) / np.float32(255),
        (SAMPLES.astype(np.uint16) * 257).astype(">u2"),
        (SAMPLES / 255).astype(">f4"),
        torch.from_numpy(SAMPLES),
        torch.from_numpy(SAMPLES).permute(2, 0, 1),
        PIXELS,
        PIXELS.double(),
    ],
)
def test_arrays_and_tensors(image: Any) -> None:
    restored = restore(image, model=nn.Identity(), device="cpu")
    assert restored.shape == (3, 4, 6) and restored.dtype == torch.float32
    torch.testing.assert_close(restored, PIXELS, rtol=0, atol=1e-6)


def test_path(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    write_image(Picture(PIXELS.contiguous()), path)
    assert torch.equal(restore(path, model=nn.Identity(), device="cpu"), PIXELS)
    assert torch.equal(restore(str(path), model=nn.Identity(), device="cpu"), PIXELS)


def test_read_only_arrays_are_taken_and_not_changed() -> None:
    image = SAMPLES.copy()
    image.flags.writeable = False
    restore(image, model=nn.Identity(), device="cpu")
    assert np.array_equal(image, SAMPLES)


def test_three_rows_count_as_channels() -> None:
    image = torch.rand(3, 5, 3)
    assert torch.equal(to_pixels(image), image)


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (4, 6, 4), (1, 3, 4, 6), (3, 0, 6)])
def test_wrong_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\(3, H, W\) or \(H, W, 3\)"):
        restore(np.zeros(shape, np.float32), model=nn.Identity(), device="cpu")


def test_wrong_types() -> None:
    with pytest.raises(DtypeError, match=r"torch\.int64"):
        restore(torch.zeros(3, 4, 6, dtype=torch.int64), model=nn.Identity(), device="cpu")
    for dtype in ("U8", object):
        with pytest.raises(DtypeError, match="an array of"):
            restore(np.zeros((3, 4, 6), dtype), model=nn.Identity(), device="cpu")
    with pytest.raises(DtypeError, match="type list"):
        restore([[[0.0]]], model=nn.Identity(), device="cpu")  # type: ignore[arg-type]


def test_floating_point_of_another_scale() -> None:
    with pytest.raises(RangeError, match=r"values in \[0, 200\].*Divide 8-bit values by 255"):
        restore(torch.tensor([0.0, 200.0, 100.0]).reshape(3, 1, 1), model=nn.Identity(), device="cpu")
    noisy = torch.tensor([-0.1, 1.2, 0.5]).reshape(3, 1, 1)
    assert restore(noisy, model=nn.Identity(), device="cpu").flatten().tolist() == [0, 1, 0.5]
