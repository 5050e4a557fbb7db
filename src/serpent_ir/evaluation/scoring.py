"""Which scores an image gets, and on which of its samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from serpent_ir import metrics
from serpent_ir.errors import RangeError, ShapeError, UnknownNameError

CHANNELS = ("rgb", "y")


@dataclass(frozen=True)
class Scores:
    """psnr: dB (peak 1), at most 60, see `metrics.capped_psnr`. ssim: in [-1, 1]. lpips: None: not asked."""

    psnr: float
    ssim: float
    lpips: float | None = None


@dataclass(frozen=True)
class Metric:
    """name: the field of `Scores`. label: for people. digits: behind the point, in tables."""

    name: str
    label: str
    digits: int
    higher_is_better: bool = True


METRICS = (Metric("psnr", "PSNR dB", 2), Metric("ssim", "SSIM", 4), Metric("lpips", "LPIPS", 4, higher_is_better=False))


@dataclass(frozen=True)
class Scoring:
    """Scores an image against the clean one, on every sample or on some.

    channel: "rgb", or "y" for PSNR and SSIM on luma (`metrics.luma`); LPIPS is always on RGB. border: so many pixels
    are cut off at each side before. lpips: the network, or None.

    Raises UnknownNameError for another channel, RangeError for a negative border.
    """

    channel: str = "rgb"
    border: int = 0
    lpips: metrics.Lpips | None = None

    def __post_init__(self) -> None:
        if self.channel not in CHANNELS:
            raise UnknownNameError(f"channel {self.channel!r}", f"one of {', '.join(CHANNELS)}")
        if self.border < 0:
            raise RangeError(f"border {self.border}", "0 or a positive number of pixels")

    def __call__(self, image: Tensor, clean: Tensor) -> Scores:
        """The scores of one image (3, H, W). Neither is clipped or rounded here.

        Raises RangeError when the image holds values that are not finite, ShapeError when what is left of it is too
        small: SSIM needs 11 x 11 pixels, LPIPS 31 x 31.
        """
        ours, target = self.cropped(image)[None], self.cropped(clean)[None]
        lpips = self.lpips(ours, target).item() if self.lpips is not None else None
        if self.channel == "y":
            ours, target = metrics.luma(ours.double()), metrics.luma(target.double())
        scores = Scores(metrics.capped_psnr(ours, target).item(), metrics.ssim(ours, target).item(), lpips)
        if not math.isfinite(scores.psnr + scores.ssim + (lpips or 0.0)):
            raise RangeError(f"scores {scores}", "numbers", "The image holds values that are not finite.")
        return scores

    def cropped(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if min(height, width) <= 2 * self.border:
            raise ShapeError(
                f"an image of {width} x {height} pixels without a border of {self.border}", "something that is left"
            )
        return image[..., self.border : height - self.border, self.border : width - self.border]
