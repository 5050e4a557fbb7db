"""Image file -> Picture."""

from __future__ import annotations

import io
import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyvips
import torch
from torch import Tensor

from serpent_ir.errors import ImageReadError, RangeError, out_of_memory_as
from serpent_ir.free_memory import affordable
from serpent_ir.images.messages import named_reading
from serpent_ir.images.page_limit import check_pages
from serpent_ir.images.picture import Picture
from serpent_ir.images.tiff import begins_like_tiff, exif_of_tiff
from serpent_ir.images.working_space import Conversion, Unconverted, conversion_of

pyvips.cache_set_max(0)  # of operations: what they were made of would stay open, and in memory

DEFAULT_MAX_PIXELS = 500_000_000
MAX_PIXELS_VARIABLE = "SERPENT_MAX_PIXELS"
SMALL = 16_000_000
"""Pixels for which nobody asks whether there is memory."""
FLOATS_HELD = 2
"""So many float32 beside each sample are held while a picture is made of them: the numbers and their copy."""

FORMATS = "PNG, JPEG, TIFF, WebP, GIF or AVIF"
# How files of those formats begin. Anything else is refused before libvips sees it: what else it may have been built to
# read (SVG, PDF, raw dumps, ...) has no place behind a name that promises a photograph.
SIGNATURE = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|II[*+]\0|MM\0[*+]|RIFF....WEBP|GIF8[79]a|....ftyp(?:avif|avis|mif1)", re.DOTALL
)
KEPT_FIELDS = ("icc-profile-data", "exif-data", "xmp-data", "iptc-data")
SAMPLE_TYPES = {"uchar": np.uint8, "ushort": np.uint16, "uint": np.uint32, "float": np.float32}
CMYK_TYPES = ("uchar", "ushort")
BIT_DEPTHS = {np.uint8: 8, np.uint16: 16, np.uint32: 32, np.float32: 32}
"""Of a picture, by its samples."""
GRAY = ("b-w", "grey16")
RGB = ("srgb", "rgb16", "scrgb")
TRANSPOSED_ORIENTATIONS = (5, 6, 7, 8)


def read_image(path: str | Path, max_pixels: int | None = None) -> Picture:
    """Decode a PNG, JPEG, TIFF, WebP, GIF or AVIF file completely.

    The content decides the format, not the suffix. The orientation tag is applied to the pixels, and becomes 1 when the
    picture is written. Palettes are expanded. Integer samples v of b bits become v / (2^b - 1), so that writing them
    back is exact; floating point is taken as it is. Colours of another profile than sRGB are converted to sRGB, without
    clipping, and back when the picture is written. CMYK is converted to sRGB through its own profile (or a generic
    one), and that profile is dropped. Of an animation or a file with several pages, the first is read. `Picture.notes`
    says what was done beyond reading.

    max_pixels: refuse a header that announces more, before any memory is taken. None: the environment variable
        SERPENT_MAX_PIXELS, else 500 million.

    Raises ImageReadError when the file is missing, empty, not an image, truncated, damaged, too large (for `max_pixels`
    or for the memory there is), has more than 10 000 pages, holds samples that are neither floating point nor unsigned
    integers, or numbers that are not finite, or other colours than gray, RGB and CMYK.
    """
    path = Path(path)
    check_signature(path)
    try:
        # Opened here because libvips takes UTF-8 names only, keeps files it has opened by name in a cache, and searches
        # names for "[options]".
        with (
            out_of_memory_as(ImageReadError, f"there is not enough memory to read {path}"),
            path.open("rb", buffering=0) as file,
        ):
            return decode(file, path, max_pixels)
    except ImageReadError:
        raise
    except OSError as error:
        raise ImageReadError(f"{path} cannot be read ({error.strerror})", "a readable image file") from error


def decode_picture(content: bytes, name: str, max_pixels: int | None = None) -> Picture:
    """`read_image` of a file's bytes. `name` is what errors call the file.

    Raises ImageReadError as `read_image` does.
    """
    with out_of_memory_as(ImageReadError, f"there is not enough memory to read {name}"):
        return decode(io.BytesIO(content), name, max_pixels)


def decode(file: BinaryIO, name: Path | str, max_pixels: int | None) -> Picture:
    """`read_image` of an unbuffered file, or of bytes in memory."""
    beside = exif_beside(file)  # before libvips works with the file
    image = opened(file, name, max_pixels)
    metadata, notes = facts_of(image, *beside)
    samples, maximum = samples_of(name, image)
    samples = upright(samples, orientation_of(image))
    picture = picture_from_samples(samples, maximum, metadata, notes)
    if picture.bit_depth < 32:
        return picture
    return replace(picture, notes=(*picture.notes, *notes_of_range(samples.min() / maximum, samples.max() / maximum)))


def facts_of(
    image: pyvips.Image, exif: bytes | None, exif_notes: list[str]
) -> tuple[dict[str, bytes | float], list[str]]:
    """The metadata of a picture, and what there is to say of its file; what `exif_beside` found is among it."""
    metadata, notes = metadata_of(image), notes_of(image) + exif_notes
    if exif is not None:
        metadata["exif-data"] = exif
    if image.interpretation == "cmyk":
        metadata.pop("icc-profile-data", None)
    return metadata, notes


def picture_from_samples(
    samples: np.ndarray, maximum: int, metadata: dict[str, bytes | float], notes: list[str]
) -> Picture:
    """samples: (H, W, 1 to 4), upright, of which `maximum` is 1.0."""
    values = torch.from_numpy(np.ascontiguousarray(samples.transpose(2, 0, 1), dtype=np.float32)).div_(maximum)
    depth = BIT_DEPTHS[samples.dtype.type]
    gray = values.shape[0] <= 2
    colours, alpha = values[: 1 if gray else 3], values[1 if gray else 3 :]
    colours, metadata, more = in_working_space(colours, metadata)
    return Picture(
        pixels=colours.expand(3, -1, -1).contiguous(),
        alpha=alpha.clone() if len(alpha) else None,
        bit_depth=depth,
        gray=gray,
        metadata=metadata,
        notes=(*notes, *more),
    )


def exif_beside(file: BinaryIO) -> tuple[bytes | None, list[str]]:
    """EXIF of a TIFF file, which libvips leaves aside, and notes; nothing of any other file."""
    file.seek(0)
    if not begins_like_tiff(file.read(4)):
        return None, []
    try:
        return exif_of_tiff(file), []
    except ValueError as error:
        return None, [f"its EXIF data are damaged and were left out ({error})"]


def in_working_space(
    colours: Tensor, metadata: dict[str, bytes | float]
) -> tuple[Tensor, dict[str, bytes | float], list[str]]:
    """float32 (1 or 3, H, W), as coded in the file -> as coded in sRGB; what is kept of the metadata; and notes."""
    profile = metadata.get("icc-profile-data")
    if not isinstance(profile, bytes):
        return colours, metadata, []
    conversion = conversion_of(profile, len(colours))
    if isinstance(conversion, Conversion):
        note = "converted from the colours of its profile to sRGB; they are converted back when it is written"
        return conversion.to_srgb(colours), metadata, [note]
    if conversion is Unconverted.TABLES:
        came = "its colour profile is made of tables, or has a curve that does not rise"
        return colours, metadata, [f"{came}; its values were taken as if they were sRGB"]
    if conversion is Unconverted.UNUSABLE:
        kept = {name: value for name, value in metadata.items() if name != "icc-profile-data"}
        return colours, kept, ["its colour profile is damaged or for other channels, and was left out; sRGB is assumed"]
    return colours, metadata, []


def opened(file: BinaryIO, name: Path | str, max_pixels: int | None, access: str = "sequential") -> pyvips.Image:
    """The image with its header read and checked, and not decoded yet. Raises ImageReadError.

    file: unbuffered, or bytes in memory; it must stay open, and where it is, until the image is decoded. access:
    "sequential", from top to bottom, or "random".
    """
    limit = max_pixels if max_pixels is not None else max_pixels_from_environment()
    file.seek(0)
    if not SIGNATURE.match(file.read(16)):
        raise ImageReadError(f"{name} is not an image of a known format", FORMATS)
    check_pages(file, name)
    file.seek(0)
    try:
        with named_reading(name):
            image = opened_by_libvips(file, access)
    except pyvips.Error as error:
        raise damaged(name, error) from error
    check_header(name, image, limit)
    return image


def opened_by_libvips(file: BinaryIO, access: str) -> pyvips.Image:
    if isinstance(file, io.BytesIO):
        source = pyvips.Source.new_from_memory(file.getvalue())
    else:
        source = pyvips.Source.new_from_descriptor(file.fileno())  # a copy of it, at the same place in the file
    return pyvips.Image.new_from_source(source, "", access=access, fail_on="error")


def samples_of(name: Path | str, image: pyvips.Image) -> tuple[np.ndarray, int]:
    """All samples of an image whose header was checked, (H, W, 1 to 4), not turned upright, and which of them is 1.0.

    CMYK becomes sRGB. Raises ImageReadError, naming `name`, when the image is truncated or damaged, holds numbers that
    are not finite, or is too large for the memory that is free.
    """
    maximum = maximum_of(image)
    check_memory(name, image)
    try:
        with named_reading(name):
            image = to_rgb_or_gray(image)
            content = image.write_to_memory()
    except pyvips.Error as error:
        raise damaged(name, error) from error
    samples = np.frombuffer(content, SAMPLE_TYPES[image.format])
    check_finite(name, samples)
    return samples.reshape(image.height, image.width, image.bands), maximum


def check_memory(name: Path | str, image: pyvips.Image) -> None:
    """Raise ImageReadError when a picture of all samples would not fit into the free memory.

    A file of a few bytes may announce hundreds of millions of pixels, and a system that lacks memory does not always
    say so, but kills.
    """
    if image.width * image.height <= SMALL:
        return
    sample = np.dtype(SAMPLE_TYPES[image.format]).itemsize
    needed = image.width * image.height * image.bands * (sample + FLOATS_HELD * np.dtype(np.float32).itemsize)
    free = affordable()
    if free is not None and needed > free:
        raise ImageReadError(
            f"{name} of {image.width} x {image.height} pixels takes {needed / 1e9:.2g} GB of memory",
            f"at most the {free / 1e9:.2g} GB that are free",
        )


def check_finite(name: Path | str, samples: np.ndarray) -> None:
    """Raise ImageReadError when there are numbers that are not finite."""
    if samples.dtype == np.float32 and not np.isfinite(samples).all():
        raise ImageReadError(f"{name} holds numbers that are not finite", "finite numbers, 0 for black and 1 for white")


def maximum_of(image: pyvips.Image) -> int:
    """The sample that stands for 1.0."""
    if image.get("vips-loader").startswith("heif") and image.format == "ushort":
        bits = image.get("bits-per-sample")  # 10 or 12, the upper ones
        return ((1 << bits) - 1) << (16 - bits)
    return {"uchar": 255, "ushort": 65535, "uint": 2**32 - 1}.get(image.format, 1)


def to_rgb_or_gray(image: pyvips.Image) -> pyvips.Image:
    return cmyk_to_srgb(image) if image.interpretation == "cmyk" else image


def cmyk_to_srgb(image: pyvips.Image) -> pyvips.Image:
    """The same samples for alpha, which libvips would damage in 16 bits."""
    depth = 8 if image.format == "uchar" else 16
    colours = image.extract_band(0, n=4).icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
    return colours if image.bands == 4 else colours.bandjoin(image.extract_band(4))


def notes_of_range(lowest: float, highest: float) -> list[str]:
    """Says so when values of a picture lie outside [0, 1]."""
    if lowest >= 0 and highest <= 1:
        return []
    return [f"its values lie between {lowest:g} and {highest:g}, where 0 is black and 1 is white"]


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
    cmyk = image.interpretation == "cmyk"
    if image.format not in (CMYK_TYPES if cmyk else SAMPLE_TYPES):
        expected = "unsigned samples of 8 or 16 bits" if cmyk else "unsigned or floating point samples"
        raise ImageReadError(f"{path} has {image.format} samples{' of CMYK' if cmyk else ''}", expected)
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


def notes_of(image: pyvips.Image) -> list[str]:
    """What the header tells that people should know."""
    pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    notes = [f"the first of {pages} pages was read"] if pages > 1 else []
    return notes + (["converted from CMYK to sRGB"] if image.interpretation == "cmyk" else [])


def orientation_of(image: pyvips.Image) -> int:
    """The EXIF orientation, 1 (upright) when the file has none."""
    return image.get("orientation") if image.get_typeof("orientation") else 1


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
    if "unable to write" in error.detail or "write error" in error.detail:
        return ImageReadError(
            f"{path} cannot be decoded ({reason_of(error)})",
            "free space in the folder for temporary files",
            "The environment variable TMPDIR names another.",
        )
    if "samples out of range" in error.detail:
        return ImageReadError(
            f"{path} holds samples of a kind that is not read, or too many channels",
            "integers of 1 to 32 bits, floating point of 32 bits",
        )
    return ImageReadError(
        f"{path} is truncated or damaged ({reason_of(error)})", "a whole image file", "Copy or export it once more."
    )


def reason_of(error: pyvips.Error) -> str:
    """What libvips says, on one line."""
    lines = [line.strip() for line in error.detail.splitlines() if line.strip() and "bad seek" not in line]
    return "; ".join(dict.fromkeys(lines)) or error.message
