"""The protocol: how a clean photograph becomes what every model is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from serpent_ir.images import Picture, coded_pixels, content_hash, read_image
from serpent_ir.restoration import Degrader
from serpent_ir.tasks import quantize


@dataclass(frozen=True, eq=False)
class Pair:
    """One photograph, clean and degraded; all float32.

    clean: (3, H, W) in [0, 1]. damaged: (C, h, w), what a camera would deliver; not clipped unless quantized.
    degraded: (C, H, W), that image prepared for a model. C is 3, or 4 where the last channel is a mask; h, w are
    smaller than H, W for super-resolution. content_hash: of the clean photograph, see `images.content_hash`.
    """

    clean: Tensor
    damaged: Tensor
    degraded: Tensor
    content_hash: str


def read_pair(folder: Path, name: str, degrader: Degrader, quantized: bool) -> Pair:
    """Read the clean photograph `name` below `folder` and degrade it, as `serpent degrade` would, on the CPU.

    All randomness follows from the degrader's seed and `name`: an image is degraded in the same way whatever other
    images are evaluated, and in whatever order.

    quantized: clip the damaged image and round it to 8 bits, as a file would; if not, neither (the paper's protocol).

    Raises ImageReadError when the file cannot be read.
    """
    picture = read_image(folder / name)
    return make_pair(picture, name, degrader, quantized, hash_of(picture))


def hash_of(picture: Picture) -> str:
    """The content hash of its samples as its file holds them, rounded to 8 bits: that of training data."""
    return content_hash(coded_pixels(picture))


def make_pair(picture: Picture, name: str, degrader: Degrader, quantized: bool, identity: str) -> Pair:
    """`read_pair` for a photograph that was read already, and perhaps scaled; identity: its file's content hash.

    Colours beyond sRGB are clipped.
    """
    picture = replace(picture, pixels=picture.pixels.clamp(0, 1))
    damaged = degrader.damage(picture, name)
    if quantized:
        damaged = quantize(damaged)
    prepared = degrader.operator.prepared(damaged[None], (picture.height, picture.width))[0]
    return Pair(picture.pixels, damaged, prepared, identity)
