"""The bytes of an image file <-> 8-bit RGB samples, without the detour over floats: what training data are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyvips
import torch
from torch import Tensor

from serpent_ir.errors import ImageReadError, ImageWriteError, out_of_memory_as
from serpent_ir.images.picture import Picture
from serpent_ir.images.read import (
    FORMATS,
    SIGNATURE,
    TRANSPOSED_ORIENTATIONS,
    check_header,
    check_signature,
    damaged,
    max_pixels_from_environment,
    metadata_of,
    orientation_of,
    picture_from_samples,
    reason_of,
    samples_of,
    upright,
)
from serpent_ir.images.write import SAVERS


def read_content(path: Path) -> bytes:
    """The bytes of an image file. Raises ImageReadError when it is missing, empty, no regular file or no image."""
    check_signature(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageReadError(f"{path} cannot be read ({error.strerror})", "a readable image file") from error


def decode_pixels(content: bytes, name: str, max_pixels: int | None = None) -> Tensor:
    """uint8 (3, H, W), red, green, blue, of a whole PNG, JPEG, TIFF, WebP, GIF or AVIF file.

    Equal to `read_image(...).pixels` rounded to 8 bits: upright, gray replicated, alpha left out. `name` is what errors
    call the file; `max_pixels` as in `read_image`. Raises ImageReadError as `read_image` does.
    """
    with out_of_memory_as(ImageReadError, f"there is not enough memory to read {name}"):
        image = opened(content, name, max_pixels)
        samples = upright(samples_of(name, image), orientation_of(image))
        colours = samples[:, :, :1] if samples.shape[2] <= 2 else samples[:, :, :3]
        pixels = torch.from_numpy(np.ascontiguousarray(colours.transpose(2, 0, 1)))
        if samples.dtype == np.uint16:
            pixels = pixels.float().div_(65535).mul_(255).round_().to(torch.uint8)
        return pixels.expand(3, -1, -1).contiguous()


def decode_picture(content: bytes, name: str, max_pixels: int | None = None) -> Picture:
    """`read_image` of a file's bytes. `name` is what errors call the file.

    Raises ImageReadError as `read_image` does.
    """
    with out_of_memory_as(ImageReadError, f"there is not enough memory to read {name}"):
        image = opened(content, name, max_pixels)
        metadata = metadata_of(image)
        if image.interpretation == "cmyk":
            metadata.pop("icc-profile-data", None)
        return picture_from_samples(samples_of(name, image), orientation_of(image), metadata)


def image_size(content: bytes, name: str, max_pixels: int | None = None) -> tuple[int, int]:
    """(H, W), upright, from the header alone. Raises ImageReadError when there is none that can be used."""
    image = opened(content, name, max_pixels)
    sideways = orientation_of(image) in TRANSPOSED_ORIENTATIONS
    return (image.width, image.height) if sideways else (image.height, image.width)


def opened(content: bytes, name: str, max_pixels: int | None) -> pyvips.Image:
    """The image with its header read and checked. Raises ImageReadError."""
    if not SIGNATURE.match(content[:16]):
        raise ImageReadError(f"{name} is not an image of a known format", FORMATS)
    try:
        image = pyvips.Image.new_from_buffer(content, "", access="sequential", fail_on="error")
    except pyvips.Error as error:
        raise damaged(name, error) from error
    check_header(name, image, max_pixels if max_pixels is not None else max_pixels_from_environment())
    return image


def encode_pixels(pixels: Tensor, suffix: str) -> bytes:
    """uint8 (3, H, W) as the content of a file: .png and .webp without loss, .jpg with quality 95 and full colour.

    Equal pixels give equal bytes with equal versions of the libraries. Raises ImageWriteError when the image is too
    large for the format.
    """
    target = pyvips.Target.new_to_memory()
    try:
        SAVERS[suffix](Picture(pixels.float() / 255), target)
    except pyvips.Error as error:
        raise ImageWriteError(f"an image cannot be written as {suffix} ({reason_of(error)})") from error
    return bytes(target.get("blob"))
