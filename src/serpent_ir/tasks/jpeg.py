"""JPEG compression by the real encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from serpent_ir.errors import ShapeError
from serpent_ir.tasks.options import Strength, TaskOption, check_strength, draw

if TYPE_CHECKING:
    import numpy as np

LARGEST_SIDE = 65535


class Jpeg:
    """Clips to [0, 1], rounds to 8 bits, compresses with libjpeg and decodes again: (B, 1 or 3, H, W), float.

    `quality`, 1 to 100: a number, or (lowest, highest), between which each image of a batch gets its own whole number.
    Below 90, libvips stores colour at half the resolution (4:2:0), from 90 on at the full one; tables are the standard
    ones. The result lies on the 256 levels of a file. Works on the CPU, whatever device the batch is on.

    Raises RangeError for another quality, ShapeError for another number of channels or a side beyond 65535 pixels.
    """

    OPTIONS: ClassVar[Mapping[str, TaskOption]] = {
        "quality": TaskOption((10, 90), 1, 100, "quality of the JPEG file", varies=True),
    }

    def __init__(self, quality: Strength) -> None:
        check_strength(quality, lambda value: 1 <= value <= 100, "JPEG got a quality", "1 to 100")
        self.quality = quality

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if (
            image.ndim != 4
            or image.shape[1] not in (1, 3)
            or not 1 <= min(image.shape) <= max(image.shape[2:]) <= LARGEST_SIDE
        ):
            raise ShapeError(f"JPEG got a batch of shape {tuple(image.shape)}", "(B, 1 or 3, H, W), H, W up to 65535")
        qualities = draw(self.quality, image, generator).round().int().tolist()
        samples = (
            image.detach().clamp(0, 1).mul(255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        )
        decoded = [compressed(single, quality) for single, quality in zip(samples, qualities, strict=True)]
        values = torch.stack([torch.from_numpy(single) for single in decoded]).permute(0, 3, 1, 2)
        return values.to(image.device).to(image.dtype).div(255).contiguous()


def compressed(samples: np.ndarray, quality: int) -> np.ndarray:
    """uint8 (H, W, 1 or 3) as a JPEG file of this quality holds it."""
    import pyvips

    height, width, channels = samples.shape
    image = pyvips.Image.new_from_memory(samples.data, width, height, channels, "uchar")
    file = image.copy(interpretation="srgb" if channels == 3 else "b-w").jpegsave_buffer(Q=quality)
    return pyvips.Image.jpegload_buffer(file).numpy().reshape(height, width, channels)
