"""Digests of files that `images` writes: printed when run, to compare what two processes write."""

from __future__ import annotations

import hashlib

import colour_profiles as make
import torch

from serpent_ir.images import OutputOptions, Picture, encode_picture
from serpent_ir.images.folder import WRITABLE_SUFFIXES

EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\x04\0\0\0abc\0\0\0\0\0\0"
KINDS = (
    (8, OutputOptions(), {}),
    (16, OutputOptions(), {"icc-profile-data": make.DISPLAY_P3}),
    (32, OutputOptions(quality=70), {"exif-data": EXIF, "xmp-data": b"<x:xmpmeta/>"}),
)


def digests() -> list[str]:
    """One for each format and kind of picture."""
    pixels = torch.arange(3 * 70 * 80).reshape(3, 70, 80).mul(7919).remainder(1009).div(1008)
    files = [
        encode_picture(Picture(pixels, bit_depth=bits, metadata=metadata), suffix, options)
        for suffix in WRITABLE_SUFFIXES
        for bits, options, metadata in KINDS
    ]
    return [hashlib.sha256(file).hexdigest() for file in files]


if __name__ == "__main__":
    print("\n".join(digests()))
