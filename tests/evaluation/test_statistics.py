from __future__ import annotations

import math

import numpy as np
import pytest

from serpent_ir.evaluation.statistics import DRAWN_AT_ONCE, RESAMPLES, Interval, bootstrap, paired_difference


def test_two_images_say_little() -> None:
    """The means of two draws from {0, 1} are 0, 1/2 and 1, the ends with probability 1/4 each."""
    assert bootstrap([0.0, 1.0]) == Interval(0.5, 0.0, 1.0, 2)
    assert bootstrap([7.0]) == Interval(7.0, 7.0, 7.0, 1)


def test_agrees_with_the_normal_approximation_for_many_images() -> None:
    values = np.random.default_rng(1).normal(25, 3, size=900)
    found = bootstrap(values.tolist())
    assert found.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(900)
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_covers_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    found = [bootstrap(generator.normal(size=30).tolist()) for _ in range(150)]
    covered = sum(one.low <= 0 <= one.high for one in found)
    assert 0.88 < covered / 150 < 0.99


def test_is_the_same_every_time_and_for_sets_drawn_in_parts() -> None:
    values = list(range(2 * DRAWN_AT_ONCE // RESAMPLES + 7))
    assert bootstrap(values) == bootstrap(values)
    found = bootstrap(values)
    assert found.low < found.mean < found.high and found.images == len(values)


def test_differences_are_paired() -> None:
    """Images differ by much, the models by little: only the pairing shows it."""
    theirs = np.random.default_rng(3).normal(25, 5, size=40)
    ours = theirs + np.random.default_rng(4).normal(0.1, 0.02, size=40)
    found = paired_difference(ours.tolist(), theirs.tolist())
    assert found is not None and 0.08 < found.interval.low < 0.1 < found.interval.high < 0.12
    alone = bootstrap(ours.tolist())
    assert alone.high - alone.low > 1


def test_share_of_images_won() -> None:
    ours, theirs = [1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 5.0, 3.0]
    higher, lower = paired_difference(ours, theirs), paired_difference(ours, theirs, higher_is_better=False)
    assert higher.won == 0.5 and higher.interval.mean == 0.0
    assert lower.won == 0.25
