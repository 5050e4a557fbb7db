"""Blurs with a kernel for each image, and what their kernels are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve as scipy_convolve

from serpent_ir.errors import RangeError
from serpent_ir.tasks import AnisotropicBlur, DefocusBlur, GaussianBlur, MotionBlur
from serpent_ir.tasks.kernel_blur import KernelBlur, convolve
from serpent_ir.tasks.kernels import PATH_NUMBERS, disc_kernels, gaussian_kernels, path_kernels
from serpent_ir.tasks.options import draw

AWKWARD_SIZES = [(1, 1), (1, 7), (2, 3), (13, 5), (29, 66)]
BLURS = [MotionBlur((0.0, 12.0)), DefocusBlur((0.0, 4.0)), AnisotropicBlur((0.0, 3.0))]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("size", AWKWARD_SIZES)
def test_equals_an_independent_convolution(size: tuple[int, int]) -> None:
    image, kernels = torch.rand(2, 3, *size, dtype=torch.float64), torch.rand(2, 9, 9, dtype=torch.float64)
    for single, kernel, blurred in zip(image, kernels, convolve(image, kernels), strict=True):
        for plane, of_plane in zip(single, blurred, strict=True):
            np.testing.assert_allclose(
                of_plane, scipy_convolve(plane.numpy(), kernel.numpy(), mode="mirror"), atol=1e-12
            )


@pytest.mark.parametrize("size", AWKWARD_SIZES)
@pytest.mark.parametrize("blur", BLURS)
def test_adjoint(blur: KernelBlur, size: tuple[int, int]) -> None:
    x, y = torch.randn(2, 2, 3, *size, dtype=torch.float64)
    left = (blur(x, seeded()) * y).sum()
    assert abs(left - (x * blur.adjoint(y, seeded())).sum()) < 1e-11 * x.numel()


@pytest.mark.parametrize("blur", BLURS)
def test_constants_stay_and_float32_is_close_to_float64(blur: KernelBlur) -> None:
    image = torch.rand(3, 3, 20, 31)
    image[0] = 0.3
    blurred = blur(image, seeded())
    assert blurred.shape == image.shape and blurred.dtype == torch.float32
    assert (blurred[0] - 0.3).abs().max() < 1e-6
    assert (blurred - blur(image.double(), seeded())).abs().max() < 1e-6


@pytest.mark.parametrize("blur", [MotionBlur(0), DefocusBlur(0), AnisotropicBlur(0), GaussianBlur(9, 0)])
def test_strength_0_changes_no_bit(blur: KernelBlur | GaussianBlur) -> None:
    image = torch.rand(2, 3, 5, 6)
    assert torch.equal(blur(image, seeded()), image)


def test_gaussian_kernels() -> None:
    one = torch.ones(1, dtype=torch.float64)
    image = torch.rand(1, 1, 30, 40, dtype=torch.float64)
    torch.testing.assert_close(convolve(image, gaussian_kernels(2 * one, 2 * one, one, 10)), GaussianBlur(21, 2)(image))
    kernel = gaussian_kernels(3 * one, one, math.pi / 6 * one, 20)[0]  # longer along 30 degrees, downwards to the right
    offsets = torch.arange(-20.0, 21, dtype=torch.float64)
    rows, columns = torch.meshgrid(offsets, offsets, indexing="ij")
    covariance = [(kernel * a * b).sum().item() for a, b in ((columns, columns), (rows, rows), (columns, rows))]
    assert covariance == pytest.approx([9 * 0.75 + 0.25, 9 * 0.25 + 0.75, 8 * 0.75**0.5 / 2], abs=1e-4)


def test_disc_kernels() -> None:
    kernels = disc_kernels(torch.tensor([0.5, 8.25], dtype=torch.float64), 9)
    assert kernels[0, 9, 9] == 1 and torch.equal(kernels[1], kernels[1].mT)
    assert 1 / kernels[1].max().item() == pytest.approx(math.pi * 8.25**2, rel=0.01)  # area of the disc


def test_path_kernels_have_their_length_and_their_centre() -> None:
    lengths = torch.tensor([0.0, 6.0, 24.0], dtype=torch.float64)
    shapes = torch.rand(3, PATH_NUMBERS)
    kernels = path_kernels(lengths, shapes, 24.0)
    assert kernels.shape == (3, 51, 51) and (kernels >= 0).all()
    offsets = torch.arange(-25.0, 26, dtype=torch.float64)
    for axis in (1, 2):
        torch.testing.assert_close(
            kernels.sum(dim=axis) @ offsets, torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0
        )
    torch.testing.assert_close(kernels.sum(dim=(1, 2)), torch.ones(3, dtype=torch.float64))
    assert kernels[0, 25, 25] == 1
    touched = (kernels > 0).sum(dim=(1, 2))  # a path of n pixels touches about 2 n of them
    assert 6 < touched[1] < 30 and 24 < touched[2] < 100
    straight = shapes.clone()
    straight[:, 1:4], straight[:, 7:10] = 0.5, 0.5  # neither turns nor changes its speed
    spread = (path_kernels(lengths, straight, 24.0)[2].sum(dim=1) @ offsets**2).sqrt()
    across = (path_kernels(lengths, straight, 24.0)[2].sum(dim=0) @ offsets**2).sqrt()
    assert (spread**2 + across**2).sqrt().item() == pytest.approx(24 / 12**0.5, rel=0.02)


def test_every_image_has_its_own_path_and_length() -> None:
    blur, images = MotionBlur((2.0, 9.0)), torch.rand(1, 3, 20, 20).expand(4, -1, -1, -1)
    blurred = blur(images, seeded())
    assert torch.equal(blurred, blur(images, seeded()))
    assert all((blurred[i] - blurred[j]).abs().max() > 0.01 for i in range(4) for j in range(i))
    generator = seeded()
    kernels = path_kernels(
        draw((2.0, 9.0), images, generator), torch.rand(4, PATH_NUMBERS, dtype=torch.float64, generator=generator), 9.0
    )
    torch.testing.assert_close(blurred, convolve(images, kernels))


@pytest.mark.parametrize("make", [MotionBlur, DefocusBlur, AnisotropicBlur, lambda ratio: AnisotropicBlur(1, ratio)])
def test_impossible_strengths_are_refused(make: type[MotionBlur]) -> None:
    with pytest.raises(RangeError):
        make(-1)
    with pytest.raises(RangeError):
        make((0.5, 0.4))
