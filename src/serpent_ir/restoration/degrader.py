"""A task's degradation applied to pictures, reproducibly."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from serpent_ir import tasks

if TYPE_CHECKING:
    from serpent_ir.images import Picture


class Degrader:
    """The degradation of `task` with `options`; the randomness of a picture follows from `seed` and its name alone.

    Raises UnknownNameError or RangeError for a task, an option or a value that does not exist.
    """

    def __init__(self, task: str = "deblur", seed: int = 0, **options: Any) -> None:
        self.seed = seed
        self.operator = tasks.create(task, **options)

    def degrade_picture(self, picture: Picture, name: str) -> Picture:
        """The degraded picture, not clipped. `name`, such as "folder/a.png", and the seed decide all that is random.

        A gray picture stays gray: it gets the noise of one channel.
        """
        generator = torch.Generator().manual_seed(seed_of(self.seed, name))
        pixels = self.operator(picture.pixels[None], generator)[0]
        if picture.gray:
            pixels = pixels[:1].expand(3, -1, -1).contiguous()
        return replace(picture, pixels=pixels)


def seed_of(seed: int, name: str) -> int:
    """A seed in [0, 2^63) from a run's seed and a picture's name, the same on every machine."""
    digest = hashlib.sha256(os.fsencode(f"{seed}:{name}")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
