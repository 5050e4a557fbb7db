"""What an image file holds, as tensors plus the facts needed to write it back as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from serpent_ir.errors import DtypeError, RangeError, ShapeError


@dataclass(frozen=True, eq=False)
class Picture:
    """One image.

    pixels: float32 (3, H, W), red, green, blue, in [0, 1], coded as in the file (sRGB, or as the colour profile in
        `metadata` says); a gray image is replicated to three channels.
    alpha: float32 (1, H, W) in [0, 1], not multiplied into the pixels, or None. Passed through, never restored.
    bit_depth: 8 or 16, bits per channel of the file that was read, and of the file written where its format can.
    gray: the file has one colour channel, and is written back with one.
    metadata: header fields under their libvips names: `icc-profile-data`, `exif-data`, `xmp-data`, `iptc-data` (bytes
        as in the file), `xres` and `yres` (float, pixels per millimetre). The pixels are upright whatever orientation
        EXIF or XMP name.
    notes: sentences for people on what reading or writing could not keep.

    Raises ShapeError, DtypeError or RangeError when a field is not of this form.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    bit_depth: int = 8
    gray: bool = False
    metadata: Mapping[str, bytes | float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_plane(self.pixels, channels=3, name="pixels")
        if self.alpha is not None:
            check_plane(self.alpha, channels=1, name="alpha")
            if self.alpha.shape[1:] != self.pixels.shape[1:]:
                raise ShapeError(
                    f"alpha of {tuple(self.alpha.shape)} with pixels of {tuple(self.pixels.shape)}",
                    "equal heights and widths",
                )
        if self.bit_depth not in (8, 16):
            raise RangeError(f"bit depth {self.bit_depth}", "8 or 16")

    @property
    def height(self) -> int:
        return self.pixels.shape[1]

    @property
    def width(self) -> int:
        return self.pixels.shape[2]


def check_plane(values: Tensor, channels: int, name: str) -> None:
    """Raise unless `values` is a float32 tensor (channels, H, W) with H, W >= 1."""
    if values.ndim != 3 or values.shape[0] != channels or values.numel() == 0:
        raise ShapeError(f"{name} of shape {tuple(values.shape)}", f"({channels}, H, W) with H, W >= 1")
    if values.dtype != torch.float32:
        raise DtypeError(f"{name} of {values.dtype}", "torch.float32")
