"""How a picture is to be written, where not as it was read."""

from __future__ import annotations

from dataclasses import dataclass

from serpent_ir.errors import RangeError, UnknownNameError
from serpent_ir.images.folder import WRITABLE_SUFFIXES
from serpent_ir.images.picture import BIT_DEPTHS


@dataclass(frozen=True)
class OutputOptions:
    """suffix: the format, as the suffix of its files, such as ".png", in lower case. None: as the file is named.
    quality: 1 to 100, of JPEG, WebP and AVIF files. None: 95 for JPEG, and no loss at all for WebP and AVIF. PNG and
        TIFF files never lose anything, whatever the quality.
    bit_depth: 8, 16, or 32 for floating point. None: as the picture has it. Where the format has no such depth, the
        next one below that it has: PNG 8 and 16, TIFF 8, 16 and 32, AVIF 8 and 12, JPEG and WebP 8.

    Raises UnknownNameError or RangeError for anything else.
    """

    suffix: str | None = None
    quality: int | None = None
    bit_depth: int | None = None

    def __post_init__(self) -> None:
        if self.suffix is not None and self.suffix not in WRITABLE_SUFFIXES:
            raise UnknownNameError(f"the format {self.suffix!r}", f"one of {', '.join(WRITABLE_SUFFIXES)}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise RangeError(f"quality {self.quality}", "1 to 100")
        if self.bit_depth is not None and self.bit_depth not in BIT_DEPTHS:
            raise RangeError(f"bit depth {self.bit_depth}", "8, 16 or 32")
