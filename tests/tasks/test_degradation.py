from __future__ import annotations

import torch

from serpent_ir import tasks
from serpent_ir.tasks import quantize


def test_the_share_of_images_that_are_clipped_and_rounded() -> None:
    clean, task = torch.rand(400, 3, 4, 4), tasks.create("denoise", sigma=50)
    plain = task(clean, torch.Generator().manual_seed(0))
    mixed = task(clean, torch.Generator().manual_seed(0), quantized_fraction=0.25)
    rounded = torch.tensor([torch.equal(image, quantize(other)) for image, other in zip(mixed, plain, strict=True)])
    kept = torch.tensor([torch.equal(image, other) for image, other in zip(mixed, plain, strict=True)])
    assert 60 < rounded.sum() < 140 and torch.equal(rounded, ~kept)
