"""Image file -> Picture."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import numpy as np
import pyvips
import torch

from serpent_ir.errors import ImageReadError, RangeError, out_of_memory_as
from serpent_ir.images.picture import Picture

DEFAULT_MAX_PIXELS = 500_000_000
MAX_PIXELS_VARIABLE = "SERPENT_MAX_PIXELS"

FORMATS = "PNG, JPEG, TIFF, WebP, GIF or AVIF"
# How files of those formats begin. Anything else is refused before libvips sees it: what else it may have been built to
# read (SVG, PDF, raw dumps, ...) has no place behind a name that promises a photograph.
SIGNATURE = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|II[*+]\0|MM\0[*+]|RIFF....WEBP|GIF8[79]a|....ftyp(?:avif|avis|mif1)", re.DOTALL
)
KEPT_FIELDS = ("icc-profile-data", "exif-data", "xmp-data", "iptc-data")
SAMPLE_TYPES = {"uchar": np.uint8, "ushort": np.uint16}
GRAY = ("b-w", "grey16")
RGB = ("srgb", "rgb16")
TRANSPOSED_ORIENTATIONS = (5, 6, 7, 8)


def read_image(path: str | Path, max_pixels: int | None = None) -> Picture:
    """Decode a PNG, JPEG, TIFF, WebP, GIF or AVIF file completely.

    The orientation tag is applied to the pixels, and becomes 1 when the picture is written. Palettes are expanded.
    CMYK is converted to sRGB through its own profile (or a generic one), and that profile is dropped. Of an animation
    or a file with several pages, the first is read. Samples v of b bits become v / (2^b - 1), so that writing them
    back is exact. The content decides the format, not the suffix.

    max_pixels: refuse a header that announces more, before any memory is taken. None: the environment variable
        SERPENT_MAX_PIXELS, else 500 million.

    Raises ImageReadError when the file is missing, empty, not an image, truncated, damaged, too large (for `max_pixels`
    or for the memory there is), or holds samples that are neither 8- nor 16-bit gray, RGB or CMYK.
    """
    path = Path(path)
    limit = max_pixels if max_pixels is not None else max_pixels_from_environment()
    check_signature(path)
    with out_of_memory_as(ImageReadError, f"there is not enough memory to read {path}"):
        return decode(path, limit)


def decode(path: Path, max_pixels: int) -> Picture:
    """`read_image` of a file that begins like an image."""
    try:
        # Opened here because libvips takes UTF-8 names only, keeps files it has opened by name in a cache, and searches
        # names for "[options]". The source has a copy of the descriptor.
        with path.open("rb") as file:
            source = pyvips.Source.new_from_descriptor(file.fileno())
        image = pyvips.Image.new_from_source(source, "", access="sequential", fail_on="error")
    except OSError as error:
        raise ImageReadError(f"{path} cannot be opened ({error.strerror})", "a readable image file") from error
    except pyvips.Error as error:
        raise damaged(path, error) from error
    check_header(path, image, max_pixels)
    metadata = metadata_of(image)
    if image.interpretation == "cmyk":
        metadata.pop("icc-profile-data", None)
    return picture_from_samples(samples_of(path, image), orientation_of(image), metadata)


def samples_of(name: Path | str, image: pyvips.Image) -> np.ndarray:
    """All samples of an image whose header was checked: uint8 or uint16 (H, W, 1 to 4), not turned upright.

    CMYK becomes sRGB. Raises ImageReadError, naming `name`, when the image is truncated or damaged.
    """
    try:
        if image.interpretation == "cmyk":
            depth = 8 if image.format == "uchar" else 16
            image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
        content = image.write_to_memory()
    except pyvips.Error as error:
        raise damaged(name, error) from error
    return np.frombuffer(content, SAMPLE_TYPES[image.format]).reshape(image.height, image.width, image.bands)


def max_pixels_from_environment() -> int:
    """The limit that SERPENT_MAX_PIXELS gives, else the default. Raises RangeError when it is not a positive number."""
    text = os.environ.get(MAX_PIXELS_VARIABLE, str(DEFAULT_MAX_PIXELS))
    if not text.isdecimal() or int(text) < 1:
        raise RangeError(f"environment variable {MAX_PIXELS_VARIABLE}={text!r}", "a positive whole number of pixels")
    return int(text)


def check_signature(path: Path) -> None:
    """Raise ImageReadError, with the reason a person would give, unless `path` is a file that begins like an image."""
    try:
        mode = path.stat().st_mode
        waits = not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)  # such as a pipe, for somebody to write into it
        beginning = b"" if waits else read_beginning(path)
    except FileNotFoundError as error:
        raise ImageReadError(f"{path} does not exist", "an image file") from error
    except IsADirectoryError as error:
        raise ImageReadError(f"{path} is a folder", "an image file") from error
    except OSError as error:
        raise ImageReadError(f"{path} cannot be opened ({error.strerror})", "a readable image file") from error
    if waits:
        raise ImageReadError(f"{path} is a pipe, socket or device", "an image file")
    if not beginning:
        raise ImageReadError(f"{path} is empty (0 bytes)", "an image file")
    if not SIGNATURE.match(beginning):
        raise ImageReadError(f"{path} is not an image of a known format", FORMATS)


def read_beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def check_header(path: Path | str, image: pyvips.Image, max_pixels: int) -> None:
    """Raise ImageReadError when what the header announces is too large or of a kind that is not supported."""
    if image.width * image.height > max_pixels:
        raise ImageReadError(
            f"{path} announces {image.width} x {image.height} = {image.width * image.height:,} pixels",
            f"at most {max_pixels:,}",
            f"If the file is to be trusted, raise the limit by the environment variable {MAX_PIXELS_VARIABLE}"
            " or the argument max_pixels.",
        )
    if image.format not in SAMPLE_TYPES:
        raise ImageReadError(f"{path} has {image.format} samples", "unsigned samples of 8 or 16 bits")
    colour_bands = {"cmyk": 4, **dict.fromkeys(GRAY, 1), **dict.fromkeys(RGB, 3)}.get(image.interpretation)
    if colour_bands is None or image.bands not in (colour_bands, colour_bands + 1):
        raise ImageReadError(
            f"{path} has {image.bands} channels of colour space {image.interpretation}",
            "gray, RGB or CMYK with at most one alpha channel",
        )


def metadata_of(image: pyvips.Image) -> dict[str, bytes | float]:
    """The header fields to carry over; the resolution is that of the upright picture."""
    metadata: dict[str, bytes | float] = {name: image.get(name) for name in KEPT_FIELDS if image.get_typeof(name)}
    sideways = orientation_of(image) in TRANSPOSED_ORIENTATIONS
    metadata["xres"], metadata["yres"] = (image.yres, image.xres) if sideways else (image.xres, image.yres)
    return metadata


def orientation_of(image: pyvips.Image) -> int:
    """The EXIF orientation, 1 (upright) when the file has none."""
    return image.get("orientation") if image.get_typeof("orientation") else 1


def picture_from_samples(samples: np.ndarray, orientation: int, metadata: dict[str, bytes | float]) -> Picture:
    """samples: uint8 or uint16, (H, W, 1 to 4), as decoded, before the orientation is applied."""
    maximum = np.iinfo(samples.dtype).max
    samples = upright(samples, orientation)
    values = torch.from_numpy(np.ascontiguousarray(samples.transpose(2, 0, 1), dtype=np.float32)).div_(maximum)
    gray = values.shape[0] <= 2
    colours = 1 if gray else 3
    return Picture(
        pixels=values[:colours].expand(3, -1, -1).contiguous(),
        alpha=values[colours:].clone() if values.shape[0] > colours else None,
        bit_depth=8 if maximum == 255 else 16,
        gray=gray,
        metadata=metadata,
    )


def upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation of (H, W, C) samples: the sides where the stored row 0 and column 0 belong.

    2 and 4 are mirrored, 3 is turned by half a turn, 6 and 8 by a quarter, 5 and 7 are both. Others count as 1.
    """
    if orientation in TRANSPOSED_ORIENTATIONS:
        samples = samples.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples


def damaged(path: Path | str, error: pyvips.Error) -> ImageReadError:
    return ImageReadError(
        f"{path} is truncated or damaged ({reason_of(error)})", "a whole image file", "Copy or export it once more."
    )


def reason_of(error: pyvips.Error) -> str:
    """What libvips says, on one line."""
    lines = [line.strip() for line in error.detail.splitlines() if line.strip() and "bad seek" not in line]
    return "; ".join(dict.fromkeys(lines)) or error.message
