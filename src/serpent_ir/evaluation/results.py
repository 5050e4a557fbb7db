"""What an evaluation found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from serpent_ir.evaluation.scoring import METRICS, Metric, Scores
from serpent_ir.evaluation.statistics import (
    CONFIDENCE,
    RESAMPLES,
    SEED,
    Difference,
    Interval,
    bootstrap,
    paired_difference,
)

DEGRADED = "degraded"
"""The row of what the models are given."""

CLEAN = "clean"
"""What the photograph itself is called beside the rows."""


@dataclass(frozen=True)
class ModelFacts:
    """A model that took part.

    label: its row. card: what its weights say of themselves. task: what it was trained for; None when not known.
    training_data: the folders it was trained on, and how many images, in words; None when not known.
    hashes_known: whether its weights list the images they were trained on. trained_on: those of the evaluated images
    that are among them (names, in the order of the images); they say nothing about images that were scaled or turned.
    """

    label: str
    card: dict[str, Any]
    task: str | None = None
    training_data: str | None = None
    hashes_known: bool = False
    trained_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageScores:
    """One photograph: its path below the folder, size in pixels, `content_hash`, and the scores of each row."""

    name: str
    height: int
    width: int
    content_hash: str
    scores: dict[str, Scores]


@dataclass(frozen=True)
class FailedImage:
    """A file that could not be evaluated with every model, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """Everything needed to repeat the evaluation, and what it found; `images` and `models` hold at least one.

    options: those of the task, complete. channel, border, lpips: see `Scoring`; lpips says which weights. machine:
    processor and versions. ignored: paths below the folder of the files whose name is not that of an image.
    """

    folder: str
    task: str
    options: dict[str, Any]
    seed: int
    quantized: bool
    models: tuple[ModelFacts, ...]
    machine: dict[str, Any]
    images: tuple[ImageScores, ...]
    failed: tuple[FailedImage, ...] = ()
    ignored: tuple[str, ...] = ()
    channel: str = "rgb"
    border: int = 0
    lpips: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every file of the folder was evaluated."""
        return not self.failed and not self.ignored

    @property
    def labels(self) -> list[str]:
        """The models' rows."""
        return [model.label for model in self.models]

    @property
    def rows(self) -> list[str]:
        return [DEGRADED, *self.labels]

    @property
    def metrics(self) -> list[Metric]:
        return [metric for metric in METRICS if metric.name != "lpips" or self.lpips is not None]

    def values(self, row: str, metric: str) -> list[float]:
        """One score of one row, image by image."""
        return [getattr(image.scores[row], metric) for image in self.images]

    @cached_property
    def means(self) -> dict[str, dict[str, Interval]]:
        """row -> metric -> mean over the images (not the PSNR of the mean squared error) with its interval."""
        return {
            row: {metric.name: bootstrap(self.values(row, metric.name)) for metric in self.metrics} for row in self.rows
        }

    @cached_property
    def differences(self) -> dict[str, dict[str, Difference]]:
        """row -> metric -> what the row has more than the first model; for every row but that one."""
        first = self.labels[0]
        return {
            row: {
                metric.name: paired_difference(
                    self.values(row, metric.name), self.values(first, metric.name), metric.higher_is_better
                )
                for metric in self.metrics
            }
            for row in self.rows
            if row != first
        }

    def mean(self, row: str, metric: str = "psnr") -> float:
        """The mean of one score over the images."""
        return self.means[row][metric].mean

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists:

        - `folder`, `task`, `options`, `seed`, `quantized`, `channel`, `border`, `lpips`, `machine`: see `Evaluation`.
        - `models`: a list of {label, card, task, training_data, hashes_known, trained_on}: see `ModelFacts`.
        - `bootstrap`: {resamples, seed, confidence}.
        - `mean`: row -> metric -> {mean, low, high, images}. Rows are "degraded" and the labels of the models; metrics
          are "psnr", "ssim" and, when asked for, "lpips".
        - `difference_to_first`: row -> metric -> {interval: {mean, low, high, images}, won}.
        - `images`: a list of {name, height, width, content_hash, scores: row -> metric -> number}.
        - `failed`: a list of {name, reason}. `ignored`: a list of names.
        """
        names = [metric.name for metric in self.metrics]
        facts = {
            name: getattr(self, name)
            for name in ("folder", "task", "options", "seed", "quantized", "channel", "border", "lpips", "machine")
        }
        return {
            **facts,
            "models": [{**asdict(model), "trained_on": list(model.trained_on)} for model in self.models],
            "bootstrap": {"resamples": RESAMPLES, "seed": SEED, "confidence": CONFIDENCE},
            "mean": {row: {name: asdict(one) for name, one in cells.items()} for row, cells in self.means.items()},
            "difference_to_first": {
                row: {name: asdict(one) for name, one in cells.items()} for row, cells in self.differences.items()
            },
            "images": [
                {
                    **{name: getattr(image, name) for name in ("name", "height", "width", "content_hash")},
                    "scores": {
                        row: {name: getattr(scores, name) for name in names} for row, scores in image.scores.items()
                    },
                }
                for image in self.images
            ],
            "failed": [asdict(failure) for failure in self.failed],
            "ignored": list(self.ignored),
        }
