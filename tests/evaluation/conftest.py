from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serpent_ir.images import Picture, write_image


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of three smooth colour pictures of awkward sizes, one in a folder below."""
    folder = tmp_path / "photographs"
    (folder / "below").mkdir(parents=True)
    for index, (name, height, width) in enumerate([("a.png", 24, 37), ("below/b.png", 33, 16), ("c.png", 11, 40)]):
        coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(index))
        pixels = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
        write_image(Picture(pixels), folder / name)
    return folder
