from __future__ import annotations

import torch

from serpent_ir.data import generated_photographs


def test_images_depend_on_seed_and_index_alone() -> None:
    first, again, other = generated_photographs(2, 1), generated_photographs(3, 1), generated_photographs(2, 2)
    assert first[0].pixels.dtype == torch.uint8 and first[0].pixels.shape == (3, 160, 160)
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(first, again, strict=False))
    assert not torch.equal(first[0].pixels, first[1].pixels)
    assert not torch.equal(first[0].pixels, other[0].pixels)


def test_images_have_edges_and_flat_parts() -> None:
    pixels = generated_photographs(1, 0)[0].pixels.float()
    steps = (pixels[..., 1:] - pixels[..., :-1]).abs().sum(0)
    assert 0.02 < (steps > 0).float().mean() < 0.4
