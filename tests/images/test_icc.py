"""Profiles as curves and a matrix, compared with formulas and with Little CMS, through Pillow."""

from __future__ import annotations

import contextlib
import io

import colour_profiles as make
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from serpent_ir.images.icc import CURVE_POINTS, curve_of, parse_profile
from serpent_ir.images.working_space import Conversion, Unconverted, conversion_of

STEPS = np.linspace(0, 1, CURVE_POINTS)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        (make.LINEAR, STEPS),
        (make.power(1.8), STEPS ** (461 / 256)),
        (make.table(lambda value: value * value, 3), np.where(STEPS < 0.5, STEPS / 2, 1.5 * STEPS - 0.5)),
        (make.parametric(0, 2), STEPS**2),
        (make.parametric(1, 2, 1.25, -0.25), np.maximum(1.25 * STEPS - 0.25, 0) ** 2),
        (make.parametric(2, 2, 0.5, 0, 0.75), (0.5 * STEPS) ** 2 + 0.75),
        (make.parametric(3, 2, 0.75, 0.25, 0.5, 0.125), np.where(STEPS < 0.125, STEPS / 2, (3 * STEPS + 1) ** 2 / 16)),
        (
            make.parametric(4, 2, 0.5, 0, 0.25, 0.5, 0.5, 0.125),
            np.where(STEPS < 0.5, STEPS / 4 + 0.125, STEPS**2 / 4 + 0.5),
        ),
    ],
)
def test_kinds_of_curves(tag: bytes, expected: np.ndarray) -> None:
    np.testing.assert_allclose(curve_of(tag), expected, rtol=0, atol=1.0 / 65535)


@pytest.mark.parametrize(
    ("tag", "smooth"),
    [
        (make.power(2.2), True),
        (make.SRGB_PARAMETRIC, True),
        (make.table(make.srgb_curve, 26), True),
        (make.table(lambda value: value**3, 20), False),
        (make.table(lambda value: round(8 * value) / 8, 200), False),
    ],
)
def test_a_curve_and_its_inverse_beyond_zero_and_one(tag: bytes, smooth: bool) -> None:
    (curve,) = parse_profile(make.profile(tag)).curves or ()
    values = np.linspace(-2, 3, 100001)
    assert np.abs(curve.coded(curve.light(values)) - values).max() < (0.3 / 65535 if smooth else 1.2e-7)
    assert curve.is_smooth == smooth
    assert (np.diff(curve.light(values)) > 0).all()


@pytest.mark.parametrize(
    "content", [make.DISPLAY_P3, make.ADOBE_RGB, make.PROPHOTO_RGB, make.profile(make.LINEAR, make.columns(make.SRGB))]
)
def test_colours_are_those_of_little_cms(content: bytes) -> None:
    """In sRGB's gamut, within the rounding of 8 bits on both sides: one level, two in the steep darks."""
    conversion = conversion_of(content, 3)
    assert isinstance(conversion, Conversion)
    samples = np.random.default_rng(0).integers(0, 256, (1, 20_000, 3), np.uint8)
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    srgb = ImageCms.createProfile("sRGB")
    theirs = ImageCms.profileToProfile(Image.fromarray(samples), io.BytesIO(content), srgb, intent)
    ours = conversion.to_srgb(torch.from_numpy(samples.transpose(2, 0, 1).astype(np.float32) / 255)).numpy()
    inside = ((ours > 0.02) & (ours < 1)).all(axis=0)
    difference = np.abs(ours.transpose(1, 2, 0) * 255 - np.asarray(theirs, np.float32))[inside]
    assert inside.sum() > 3000 and difference.max() <= 2 and np.median(difference) < 0.5


def test_what_counts_as_srgb() -> None:
    for curve in (make.SRGB_PARAMETRIC, make.table(make.srgb_curve, 1024), make.table(make.srgb_curve, 26)):
        assert conversion_of(make.profile(curve, make.columns(make.SRGB)), 3) is Unconverted.SRGB
    assert conversion_of(make.profile(make.SRGB_PARAMETRIC), 1) is Unconverted.SRGB
    for content in (make.profile(make.power(2.2), make.columns(make.SRGB)), make.DISPLAY_P3):
        assert isinstance(conversion_of(content, 3), Conversion)


def test_what_cannot_be_used() -> None:
    assert conversion_of(make.TABLES, 3) is Unconverted.TABLES
    for content in (make.profile(make.table(lambda value: 1 - value, 9)), make.profile(make.parametric(0, -1.0))):
        assert conversion_of(content, 1) is Unconverted.TABLES
    assert conversion_of(make.GRAY_GAMMA, 3) is Unconverted.UNUSABLE
    assert conversion_of(make.DISPLAY_P3, 1) is Unconverted.UNUSABLE
    same = np.ones((3, 3)) / 3
    for content in (b"", b"profile", make.DISPLAY_P3[:-1], make.profile(make.LINEAR, same)):
        assert conversion_of(content, 3) is Unconverted.UNUSABLE


@given(place=st.integers(0, len(make.SRGB_TABLE) - 1), value=st.binary(min_size=1, max_size=8), cut=st.booleans())
@settings(max_examples=60, deadline=None)
def test_damage_is_never_more_than_a_value_error(place: int, value: bytes, cut: bool) -> None:
    content = (
        make.SRGB_TABLE[:place] if cut else make.SRGB_TABLE[:place] + value + make.SRGB_TABLE[place + len(value) :]
    )
    with contextlib.suppress(ValueError):
        parse_profile(content)
