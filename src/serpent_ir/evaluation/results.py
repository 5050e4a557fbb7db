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
    ignored: paths below the folder of the files whose name is not that of an image.
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
    ignored: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every file of the folder was evaluated."""
        return not self.failed and not self.ignored

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
        failed, ignored = fields.pop("failed"), fields.pop("ignored")
        return {**fields, "mean": mean, "images": list(images), "failed": list(failed), "ignored": list(ignored)}


def mean_scores(scores: list[Scores]) -> Scores:
    """The mean of each score over images (not the PSNR of the mean squared error)."""
    return Scores(fmean(score.psnr for score in scores), fmean(score.ssim for score in scores))
