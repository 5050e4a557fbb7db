"""The protocol: how a clean photograph becomes a degraded one to be scored, and the scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from serpent_ir import metrics
from serpent_ir.errors import RangeError
from serpent_ir.evaluation.results import Scores
from serpent_ir.images import read_image
from serpent_ir.restoration import Degrader
from serpent_ir.tasks import quantize


@dataclass(frozen=True, eq=False)
class Pair:
    """One photograph, clean and degraded; both float32 (3, H, W). Clean is in [0, 1], degraded need not be."""

    clean: Tensor
    degraded: Tensor


def read_pair(folder: Path, name: str, degrader: Degrader, quantized: bool) -> Pair:
    """Read the clean photograph `name` below `folder` and degrade it, as `serpent degrade` would, on the CPU.

    All randomness follows from the degrader's seed and `name`: an image is degraded in the same way whatever other
    images are evaluated, and in whatever order.

    quantized: clip the degraded image and round it to 8 bits, as a file would; if not, neither (the paper's protocol).

    Raises ImageReadError when the file cannot be read.
    """
    picture = read_image(folder / name)
    degraded = degrader.degrade_picture(picture, name).pixels
    return Pair(picture.pixels, quantize(degraded) if quantized else degraded)


def measure(image: Tensor, clean: Tensor) -> Scores:
    """PSNR and SSIM of one image (3, H, W) against the clean one, as `serpent_ir.metrics` defines them.

    Raises RangeError when a score is not finite (an image that holds NaN or infinity; or equals the clean one exactly,
    so that its PSNR is infinite and has no place in a mean), ShapeError when the image is too small for SSIM.
    """
    scores = Scores(metrics.psnr(image[None], clean[None]).item(), metrics.ssim(image[None], clean[None]).item())
    if not scores.is_finite():
        raise RangeError(
            f"PSNR {scores.psnr} dB and SSIM {scores.ssim}",
            "finite scores",
            "The image holds values that are not finite, or equals the clean image exactly.",
        )
    return scores
