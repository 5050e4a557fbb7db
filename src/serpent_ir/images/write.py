"""Picture -> image file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyvips
import torch
from torch import Tensor

from serpent_ir.errors import ImageWriteError, out_of_memory_as
from serpent_ir.files import replacing
from serpent_ir.images.folder import WRITABLE_SUFFIXES
from serpent_ir.images.picture import Picture
from serpent_ir.images.read import reason_of

ORIENTATION_IN_XMP = re.compile(rb"""(tiff:Orientation(?:=["']|>)\s*)[1-8]""")


@dataclass(frozen=True)
class OutputOptions:
    """The suffix of the format, the quality of a JPEG, the bits of a sample; None: as they came."""

    suffix: str | None = None
    quality: int | None = None
    bit_depth: int | None = None


def encode_picture(picture: Picture, suffix: str, options: OutputOptions | None = None) -> bytes:
    """The content of the file that `write_image` writes. Raises ImageWriteError."""
    options = options or OutputOptions()
    check_writable_suffix(Path(f"the picture{suffix}"))
    if options.bit_depth in (8, 16):
        picture = replace(picture, bit_depth=options.bit_depth)
    target = pyvips.Target.new_to_memory()
    try:
        with out_of_memory_as(ImageWriteError, f"there is not enough memory to write {suffix}"):
            if options.quality is not None and suffix in (".jpg", ".jpeg"):
                save_jpeg(picture, target, options.quality)
            else:
                SAVERS[suffix.lower()](picture, target)
    except pyvips.Error as error:
        raise ImageWriteError(f"the picture cannot be written as {suffix} ({reason_of(error)})") from error
    return bytes(target.get("blob"))


def write_image(picture: Picture, path: str | Path, options: OutputOptions | None = None) -> None:
    """Write `picture` in the format that the suffix of `path` names; PNG, TIFF and WebP without loss.

    .png: 8 or 16 bits. .tif, .tiff: 8 or 16 bits, deflate. .webp: lossless, 8 bits, always RGB. .jpg, .jpeg: quality
    95, 4:4:4, 8 bits, no alpha. Values are clipped to [0, 1] and rounded to the nearest sample; 16-bit pictures are
    rounded to 8 bits where the format has no more. A gray picture is written with one channel, the mean of the three.
    The orientation tag is 1. Colour profile, EXIF, XMP and resolution are written where libvips can (it puts no EXIF
    into TIFF, and no resolution into WebP other than through EXIF).

    The file appears whole or not at all: it is written under a temporary name in the same folder, then renamed. A file
    that was there before is replaced only on success, and its permissions are kept. Missing folders are made.

    Raises ImageWriteError when the suffix has no format, pixels or alpha are not finite, a JPEG would lose an alpha
    channel that is not fully opaque, or the file cannot be written.
    """
    path = Path(path)
    check_writable_suffix(path)
    save = SAVERS[path.suffix.lower()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            out_of_memory_as(ImageWriteError, f"there is not enough memory to write {path}"),
            replacing(path) as temporary,
            temporary.open("wb+") as file,  # libvips takes names in UTF-8 only, descriptors of any file
        ):
            save(picture, pyvips.Target.new_to_descriptor(file.fileno()))
    except ImageWriteError:
        raise
    except pyvips.Error as error:
        raise ImageWriteError(f"{path} cannot be written ({reason_of(error)})") from error
    except OSError as error:
        raise ImageWriteError(f"{path} cannot be written ({error.strerror})") from error


def check_writable_suffix(path: Path) -> None:
    """Raise ImageWriteError unless `write_image` has a format for the suffix of `path`."""
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise ImageWriteError(f"cannot write {path}", f"a suffix among {', '.join(WRITABLE_SUFFIXES)}")


def save_png(picture: Picture, target: pyvips.Target) -> None:
    vips_image(picture, picture.bit_depth).pngsave_target(target)


def save_tiff(picture: Picture, target: pyvips.Target) -> None:
    vips_image(picture, picture.bit_depth).tiffsave_target(target, compression="deflate", predictor="horizontal")


def save_jpeg(picture: Picture, target: pyvips.Target, quality: int = 95) -> None:
    if picture.alpha is not None and not bool((picture.alpha == 1).all()):
        raise ImageWriteError(
            "a picture with transparency cannot be a JPEG file",
            "a format with an alpha channel",
            "Write .png, .tif or .webp.",
        )
    opaque = vips_image(replace(picture, alpha=None), 8)
    opaque.jpegsave_target(target, Q=quality, subsample_mode="off", optimize_coding=True)


def save_webp(picture: Picture, target: pyvips.Target) -> None:
    image = vips_image(picture, 8)
    profile = picture.metadata.get("icc-profile-data")
    if isinstance(profile, bytes) and profile[16:20] == b"GRAY":  # the file will be RGB, where this profile is invalid
        image = image.icc_transform("srgb", embedded=True)
    image.webpsave_target(target, lossless=True, exact=True)


SAVERS: dict[str, Callable[[Picture, pyvips.Target], None]] = {
    ".png": save_png,
    ".jpg": save_jpeg,
    ".jpeg": save_jpeg,
    ".tif": save_tiff,
    ".tiff": save_tiff,
    ".webp": save_webp,
}


def vips_image(picture: Picture, bits: int) -> pyvips.Image:
    """The picture as unsigned samples of `bits`, one or three colour channels and alpha, with its metadata attached."""
    for name, plane in (("pixels", picture.pixels), ("alpha", picture.alpha)):
        if plane is not None and not bool(torch.isfinite(plane).all()):
            raise ImageWriteError(f"the {name} of the picture are not finite", "numbers in [0, 1]")
    channels = [picture.pixels.mean(dim=0, keepdim=True) if picture.gray else picture.pixels]
    if picture.alpha is not None:
        channels.append(picture.alpha)
    image = pyvips.Image.new_from_array(to_samples(torch.cat(channels), bits))
    names = {(True, 8): "b-w", (True, 16): "grey16", (False, 8): "srgb", (False, 16): "rgb16"}
    fields = dict(picture.metadata)
    image = image.copy(
        interpretation=names[picture.gray, bits],
        xres=fields.pop("xres", image.xres),
        yres=fields.pop("yres", image.yres),
    )
    for name, value in fields.items():
        if name == "xmp-data" and isinstance(value, bytes):
            value = ORIENTATION_IN_XMP.sub(rb"\g<1>1", value)
        image.set_type(pyvips.GValue.blob_type, name, value)
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)  # after EXIF, which brings its own
    return image


def to_samples(values: Tensor, bits: int) -> np.ndarray:
    """float (C, H, W) in [0, 1] -> uint8 or uint16 (H, W, C): clipped, times 2^bits - 1, rounded to nearest."""
    maximum = (1 << bits) - 1
    rounded = values.detach().cpu().clamp(0, 1).mul(maximum).round().permute(1, 2, 0).contiguous().numpy()
    return rounded.astype(np.uint8 if bits == 8 else np.uint16)
