"""How sure a mean over images is, and a difference between two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
SEED = 0
CONFIDENCE = 0.95
DRAWN_AT_ONCE = 5_000_000


@dataclass(frozen=True)
class Interval:
    """The mean over `images` images and the ends of its 95 % confidence interval; equal for a single image."""

    mean: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class Difference:
    """Of one model to the reference, image for image: the interval of the mean, and the share of images it wins.

    won: in [0, 1]; an image on which both are equal is won by neither.
    """

    interval: Interval
    won: float


def bootstrap(values: Sequence[float]) -> Interval:
    """The mean of one score over images, with the percentile bootstrap's interval (Efron 1979).

    Images are drawn with replacement, as many as there are, 10 000 times; the interval runs from the 2.5th to the
    97.5th percentile of the means. The draws are seeded, and equal for all rows of equally many images. It says how
    much another choice of images like these would move the mean; it knows nothing of the randomness of training.

    values: at least one, all finite.
    """
    scores = np.asarray(values, dtype=np.float64)
    count = len(scores)
    generator = np.random.default_rng(SEED)
    at_once = max(1, DRAWN_AT_ONCE // count)
    means = [
        scores[generator.integers(count, size=(min(at_once, RESAMPLES - start), count))].mean(axis=1)
        for start in range(0, RESAMPLES, at_once)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(scores.mean()), float(low), float(high), count)


def paired_difference(ours: Sequence[float], reference: Sequence[float], higher_is_better: bool = True) -> Difference:
    """Ours minus the reference's, on the same images in the same order; see `bootstrap`."""
    differences = [a - b for a, b in zip(ours, reference, strict=True)]
    sign = 1 if higher_is_better else -1
    return Difference(
        bootstrap(differences), sum(sign * difference > 0 for difference in differences) / len(differences)
    )
