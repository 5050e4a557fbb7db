"""Picture -> image file, or the bytes of one."""

from __future__ import annotations

import io
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyvips
import torch
from torch import Tensor

from serpent_ir.errors import ImageWriteError, out_of_memory_as
from serpent_ir.files import replacing
from serpent_ir.images.folder import WRITABLE_SUFFIXES
from serpent_ir.images.output_options import OutputOptions
from serpent_ir.images.picture import Picture
from serpent_ir.images.read import reason_of
from serpent_ir.images.tiff import add_exif
from serpent_ir.images.working_space import Conversion, Unconverted, conversion_of

log = logging.getLogger(__name__)

ORIENTATION_IN_XMP = re.compile(rb"""(tiff:Orientation(?:=["']|>)\s*)[1-8]""")
LARGEST_CLASSIC_TIFF = 3_900_000_000
AVIF_EFFORT = 2
"""0 to 9; the usual 4 takes four to eight times as long for files that are 2 % smaller at best."""

AVIF_THREADS = 4
"""Of the encoder: with one, it writes other bytes than with several."""
SETTING_OF_THE_PROCESS = threading.Lock()


def write_image(picture: Picture, path: str | Path, options: OutputOptions | None = None) -> None:
    """Write `picture` in the format that the suffix of `path` names; without loss in all but JPEG.

    .png: 8 or 16 bits. .tif, .tiff: 8, 16 or 32 bits (floating point), deflate. .webp: 8 bits, always RGB. .avif: 8 or
    12 bits, always RGB. .jpg, .jpeg: quality 95, 4:4:4, 8 bits, no alpha. `options` may ask for another quality or bit
    depth, which is else the picture's or, where the format has no such depth, the next one below; and for a format,
    where the name of the file has none of these suffixes.

    Pixels are converted into the picture's colour profile, if it has one; where the format cannot have it (a gray
    profile in WebP and AVIF), the file is in sRGB. Values are clipped to [0, 1] and rounded to the nearest sample; in
    floating point files they stay as they are. A gray picture is written with one channel, the mean of the three. The
    orientation tag is 1. Colour profile, EXIF, XMP and resolution are written where the format has a place for them
    (WebP and AVIF have none for the resolution other than EXIF). What is damaged among them is left out with a warning.
    Equal pictures and options give equal bytes, with equal versions of the libraries.

    The file appears whole or not at all: it is written under a temporary name in the same folder, then renamed. A file
    that was there before is replaced only on success, and its permissions are kept. Missing folders are made.

    Raises ImageWriteError when the suffix has no format, or another than `options.suffix`, the format has no room for
    so large a picture (AVIF 16384 pixels across and down, WebP 16383, JPEG 65500), pixels or alpha are not finite, a
    JPEG would lose an alpha channel that is not fully opaque, memory does not suffice, or the file cannot be written.
    """
    write_picture(picture, Path(path), options or OutputOptions())


def write_picture(picture: Picture, path: Path, options: OutputOptions, alone: bool = False) -> int:
    """`write_image` that returns the size of the file. alone: see `replacing`. Raises ImageWriteError."""
    content = encoded(picture, suffix_of(path, options), options, str(path))
    write_result(content, path, alone)
    return len(content)


def encoded(picture: Picture, suffix: str, options: OutputOptions, name: str) -> bytes:
    """What is to be written to the file called `name`. Raises ImageWriteError."""
    with named_writing(name):
        return encode_picture(picture, suffix.lower(), options)


@contextmanager
def named_writing(name: Path | str) -> Iterator[None]:
    """Within the block, an ImageWriteError names the file."""
    try:
        yield
    except ImageWriteError as error:
        raise ImageWriteError(f"{name} cannot be written: {error.came}", error.expected, error.remedy) from error


def write_result(content: bytes, path: Path, alone: bool = False) -> None:
    """Write the file whole or not at all; missing folders are made. alone: see `replacing`. Raises ImageWriteError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, alone) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise ImageWriteError(f"{path} cannot be written ({error.strerror})") from error


def suffix_of(path: Path, options: OutputOptions) -> str:
    """That of the format in which a file is written: the name's, else that of `options`. Raises ImageWriteError."""
    suffix = path.suffix.lower()
    if options.suffix is None:
        check_writable_suffix(path)
    return suffix if suffix in WRITABLE_SUFFIXES or options.suffix is None else options.suffix


def encode_picture(picture: Picture, suffix: str, options: OutputOptions | None = None) -> bytes:
    """What `write_image` writes into a file of that suffix (".png", ...), for pipes and remote stores.

    Raises ImageWriteError as `write_image` does.
    """
    saver, bits = saver_for(suffix, options or OutputOptions(), picture.bit_depth)
    check_side(saver, suffix, picture.height, picture.width)
    quality = None if options is None else options.quality
    if not saver.alpha:
        picture = without_alpha(picture)
    target = pyvips.Target.new_to_memory()
    with out_of_memory_as(ImageWriteError, "there is not enough memory to write the picture"):
        try:
            saver.save(vips_image(picture, bits, gray=picture.gray and saver.gray), target, quality)
        except pyvips.Error as error:
            raise ImageWriteError(f"libvips cannot make a {suffix} file of it ({reason_of(error)})") from error
        content = bytes(target.get("blob"))
        return with_exif(content, picture) if saver is TIFF else content


def saver_for(suffix: str, options: OutputOptions, depth: int) -> tuple[Saver, int]:
    """The format of a suffix, and the bits per channel in which it takes a picture of that depth.

    Raises ImageWriteError when there is no such format, or `options` ask for another.
    """
    if suffix not in SAVERS:
        raise ImageWriteError(f"cannot write the format {suffix!r}", f"a suffix among {', '.join(WRITABLE_SUFFIXES)}")
    saver = SAVERS[suffix]
    if SAVERS[options.suffix or suffix] is not saver:
        raise ImageWriteError(f"the name says {suffix}, the format asked for is {options.suffix}", "a name that fits")
    wanted = options.bit_depth or depth
    return saver, max(bits for bits in saver.depths if bits <= wanted)


def check_side(saver: Saver, suffix: str, height: int, width: int) -> None:
    """Raise ImageWriteError when a picture of that size is too large for the format."""
    if saver.side is not None and max(height, width) > saver.side:
        raise ImageWriteError(
            f"{width} x {height} pixels are too many for a {suffix} file",
            f"at most {saver.side} across and down",
            "Write .png or .tif.",
        )


def check_writable_suffix(path: Path) -> None:
    """Raise ImageWriteError unless `write_image` has a format for the suffix of `path`."""
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise ImageWriteError(f"cannot write {path}", f"a suffix among {', '.join(WRITABLE_SUFFIXES)}")


def save_png(image: pyvips.Image, target: pyvips.Target, quality: int | None) -> None:
    image.pngsave_target(target)


def save_tiff(image: pyvips.Image, target: pyvips.Target, quality: int | None) -> None:
    predictor = "float" if image.format == "float" else "horizontal"
    size = image.width * image.height * image.bands * {"uchar": 1, "ushort": 2, "float": 4}[image.format]
    image.tiffsave_target(target, compression="deflate", predictor=predictor, bigtiff=size > LARGEST_CLASSIC_TIFF)


def save_jpeg(image: pyvips.Image, target: pyvips.Target, quality: int | None) -> None:
    image.jpegsave_target(target, Q=95 if quality is None else quality, subsample_mode="off", optimize_coding=True)


def save_webp(image: pyvips.Image, target: pyvips.Target, quality: int | None) -> None:
    if quality is None:
        image.webpsave_target(target, lossless=True, exact=True)
    else:
        image.webpsave_target(target, Q=quality, alpha_q=quality, smart_subsample=True)


def save_avif(image: pyvips.Image, target: pyvips.Target, quality: int | None) -> None:
    strength = {"lossless": True} if quality is None else {"Q": quality, "subsample_mode": "off"}
    bits = 8 if image.format == "uchar" else 12
    with SETTING_OF_THE_PROCESS:
        before = pyvips.vips_lib.vips_concurrency_get()
        pyvips.vips_lib.vips_concurrency_set(AVIF_THREADS)
        try:
            image.heifsave_target(target, compression="av1", bitdepth=bits, effort=AVIF_EFFORT, **strength)
        finally:
            pyvips.vips_lib.vips_concurrency_set(before)


@dataclass(frozen=True)
class Saver:
    """One format. depths: bits per channel that it has, 32 for floating point; gray, alpha: whether it has these.

    side: the most pixels that libvips writes across and down; None: any that come up.
    """

    save: Callable[[pyvips.Image, pyvips.Target, int | None], None]
    depths: tuple[int, ...]
    gray: bool = True
    alpha: bool = True
    side: int | None = None


PNG = Saver(save_png, (8, 16))
JPEG = Saver(save_jpeg, (8,), alpha=False, side=65500)
TIFF = Saver(save_tiff, (8, 16, 32))
WEBP = Saver(save_webp, (8,), gray=False, side=16383)
AVIF = Saver(save_avif, (8, 12), gray=False, side=16384)
SAVERS = {".png": PNG, ".jpg": JPEG, ".jpeg": JPEG, ".tif": TIFF, ".tiff": TIFF, ".webp": WEBP, ".avif": AVIF}


def without_alpha(picture: Picture) -> Picture:
    """The picture for a format that has no alpha. Raises ImageWriteError when some of it is transparent."""
    if picture.alpha is not None and not bool((picture.alpha == 1).all()):
        raise ImageWriteError(
            "a picture with transparency cannot be a JPEG file",
            "a format with an alpha channel",
            "Write .png, .tif, .webp or .avif.",
        )
    return replace(picture, alpha=None)


def vips_image(picture: Picture, bits: int, gray: bool) -> pyvips.Image:
    """The picture as samples of `bits`, one or three colour channels and alpha, with its metadata attached."""
    samples, fields = samples_of_picture(picture, bits, gray)
    return with_header(pyvips.Image.new_from_array(samples), bits, gray, fields)


def samples_of_picture(picture: Picture, bits: int, gray: bool) -> tuple[np.ndarray, dict[str, bytes | float]]:
    """(H, W, channels) as `to_samples` makes them, coded in the picture's profile, and the metadata for the file."""
    for name, plane in (("pixels", picture.pixels), ("alpha", picture.alpha)):
        if plane is not None and not bool(torch.isfinite(plane).all()):
            raise ImageWriteError(f"the {name} of the picture are not finite", "numbers in [0, 1]")
    colours = mean_of_channels(picture.pixels) if picture.gray else picture.pixels
    colours, fields = in_profile(colours, dict(picture.metadata), gray)
    if picture.gray and not gray:
        colours = colours.expand(3, -1, -1)
    channels = [colours] if picture.alpha is None else [colours, picture.alpha]
    return to_samples(torch.cat(channels), bits), fields


def with_header(image: pyvips.Image, bits: int, gray: bool, fields: dict[str, bytes | float]) -> pyvips.Image:
    """`image` with what its numbers mean, and with metadata."""
    names = {8: ("srgb", "b-w"), 32: ("scrgb", "b-w")}.get(bits, ("rgb16", "grey16"))
    image = image.copy(
        interpretation=names[gray],
        xres=fields.pop("xres", image.xres),
        yres=fields.pop("yres", image.yres),
    )
    for name, value in fields.items():
        if name == "xmp-data" and isinstance(value, bytes):
            value = ORIENTATION_IN_XMP.sub(rb"\g<1>1", value)
        image.set_type(pyvips.GValue.blob_type, name, value)
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)  # after EXIF, which brings its own
    return image


def mean_of_channels(pixels: Tensor) -> Tensor:
    """(3, H, W) -> (1, H, W), exact where the channels are equal."""
    red = pixels[:1]
    return red + (pixels[1:] - red).sum(dim=0, keepdim=True) / 3


def in_profile(
    colours: Tensor, fields: dict[str, bytes | float], gray: bool
) -> tuple[Tensor, dict[str, bytes | float]]:
    """Colours of a picture, (1 or 3, H, W), as coded in its profile, and its metadata for a file that is gray or not.

    A profile that the file cannot have is left out: the colours are those of sRGB.
    """
    profile = fields.get("icc-profile-data")
    if not isinstance(profile, bytes):
        return colours, fields
    conversion = conversion_of(profile, len(colours))
    if len(colours) == 1 and not gray:
        fields["icc-profile-data"] = pyvips.Operation.call("profile_load", "srgb")
    elif isinstance(conversion, Conversion):
        colours = conversion.from_srgb(colours)
    elif conversion is Unconverted.UNUSABLE:
        log.warning("a colour profile that is damaged or for other channels was left out; the file is in sRGB")
        del fields["icc-profile-data"]
    return colours, fields


def coded_pixels(picture: Picture) -> Tensor:
    """uint8 (3, H, W): the picture's samples as an 8-bit file holds them, coded in its profile, gray replicated.

    Of a picture that was read from 8 bits, `decode_pixels` of its file.
    """
    colours = mean_of_channels(picture.pixels) if picture.gray else picture.pixels
    colours, _ = in_profile(colours, dict(picture.metadata), picture.gray)
    return torch.from_numpy(to_samples(colours, 8)).permute(2, 0, 1).expand(3, -1, -1).contiguous()


def with_exif(tiff: bytes, picture: Picture) -> bytes:
    """A TIFF file with the picture's EXIF."""
    file = io.BytesIO(tiff)
    append_exif(file, picture.metadata, picture.width, picture.height)
    return file.getvalue()


def append_exif(file: BinaryIO, metadata: Mapping[str, bytes | float], width: int, height: int) -> None:
    """Put EXIF into a TIFF file, which libvips leaves out."""
    exif = metadata.get("exif-data")
    if isinstance(exif, bytes):
        try:
            add_exif(file, exif, width, height)
        except ValueError as error:
            log.warning("EXIF data were left out of a TIFF file: %s", error)


def to_samples(values: Tensor, bits: int) -> np.ndarray:
    """float32 (C, H, W) -> (H, W, C): clipped to [0, 1], times 2^bits - 1, rounded to nearest, for up to 16 bits.

    8 bits are uint8; 12 and 16 bits uint16, of which 12 are the upper ones; 32 bits float32 as they are.
    """
    planes = values.detach().cpu()
    if bits == 32:
        return planes.permute(1, 2, 0).contiguous().numpy()
    maximum = (1 << bits) - 1
    rounded = planes.clamp(0, 1).mul(maximum).round().permute(1, 2, 0).contiguous().numpy()
    return rounded.astype(np.uint8) if bits == 8 else rounded.astype(np.uint16) << (16 - bits)
