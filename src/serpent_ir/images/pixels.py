"""The bytes of an image file <-> 8-bit RGB samples, without the detour over floats: what training data are made of."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from serpent_ir.errors import ImageReadError, out_of_memory_as
from serpent_ir.images.picture import Picture
from serpent_ir.images.read import (
    TRANSPOSED_ORIENTATIONS,
    check_signature,
    opened,
    orientation_of,
    samples_of,
    upright,
)
from serpent_ir.images.write import encode_picture


def read_content(path: Path) -> bytes:
    """The bytes of an image file. Raises ImageReadError when it is missing, empty, no regular file or no image."""
    check_signature(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageReadError(f"{path} cannot be read ({error.strerror})", "a readable image file") from error


def decode_pixels(content: bytes, name: str, max_pixels: int | None = None) -> Tensor:
    """uint8 (3, H, W), red, green, blue, of a whole PNG, JPEG, TIFF, WebP, GIF or AVIF file.

    Upright, gray replicated, alpha left out, deeper samples rounded to 8 bits, floating point clipped to [0, 1]. Values
    are as coded in the file: colour profiles are not applied, so that this equals `read_image(...).pixels` rounded to 8
    bits for files in sRGB alone. `name` is what errors call the file; `max_pixels` as in `read_image`. Raises
    ImageReadError as `read_image` does.
    """
    with out_of_memory_as(ImageReadError, f"there is not enough memory to read {name}"):
        image = opened(io.BytesIO(content), name, max_pixels)
        samples, maximum = samples_of(name, image)
        samples = upright(samples, orientation_of(image))
        colours = samples[:, :, :1] if samples.shape[2] <= 2 else samples[:, :, :3]
        planes = np.ascontiguousarray(colours.transpose(2, 0, 1))
        if samples.dtype == np.uint8:
            pixels = torch.from_numpy(planes)
        else:
            values = torch.from_numpy(planes.astype(np.float32)).div_(maximum)
            pixels = values.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
        return pixels.expand(3, -1, -1).contiguous()


def image_size(content: bytes, name: str, max_pixels: int | None = None) -> tuple[int, int]:
    """(H, W), upright, from the header alone. Raises ImageReadError when there is none that can be used."""
    image = opened(io.BytesIO(content), name, max_pixels)
    sideways = orientation_of(image) in TRANSPOSED_ORIENTATIONS
    return (image.width, image.height) if sideways else (image.height, image.width)


def encode_pixels(pixels: Tensor, suffix: str) -> bytes:
    """uint8 (3, H, W) as the content of a file: .png and .webp without loss, .jpg with quality 95 and full colour.

    Equal pixels give equal bytes with equal versions of the libraries. Raises ImageWriteError when the image is too
    large for the format.
    """
    return encode_picture(Picture(pixels.float() / 255), suffix)
