"""What an evaluation found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class Scores:
    """psnr in dB (peak 1), ssim in [-1, 1]."""

    psnr: float
    ssim: float

    def is_finite(self) -> bool:
        return math.isfinite(self.psnr) and math.isfinite(self.ssim)


@dataclass(frozen=True)
class ImageScore:
    """One photograph: its path below the folder, its size in pixels, the degraded and the restored image's scores."""

    name: str
    height: int
    width: int
    input: Scores
    output: Scores

    @property
    def gain(self) -> float:
        """PSNR of the output minus PSNR of the input, in dB."""
        return self.output.psnr - self.input.psnr


@dataclass(frozen=True)
class FailedImage:
    """A file that could not be evaluated, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """Everything needed to repeat the evaluation, and what it found; `images` holds at least one.

    options: those of the task, complete. model: the card of the weights. machine: processor and versions.
    """

    folder: str
    task: str
    options: dict[str, Any]
    model: dict[str, Any]
    seed: int
    quantized: bool
    machine: dict[str, Any]
    images: tuple[ImageScore, ...]
    failed: tuple[FailedImage, ...]

    @property
    def mean_input(self) -> Scores:
        return mean_scores([image.input for image in self.images])

    @property
    def mean_output(self) -> Scores:
        return mean_scores([image.output for image in self.images])

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists, the mean scores included."""
        fields = asdict(self)
        mean = {"input": asdict(self.mean_input), "output": asdict(self.mean_output)}
        images = fields.pop("images")
        failed = fields.pop("failed")
        return {**fields, "mean": mean, "images": list(images), "failed": list(failed)}


def mean_scores(scores: list[Scores]) -> Scores:
    """The mean of each score over images (not the PSNR of the mean squared error)."""
    return Scores(fmean(score.psnr for score in scores), fmean(score.ssim for score in scores))


def printable(name: str) -> str:
    """A file name fit for a terminal or a picture: control characters and bytes that are no text shown as escapes."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
