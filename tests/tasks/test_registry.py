from __future__ import annotations

from typing import Any

import pytest
import torch

from serpent_ir import tasks
from serpent_ir.errors import DtypeError, RangeError, ShapeError, UnknownNameError


def test_convention_deblur_is_blur_of_deviation_3_then_noise_of_5_percent() -> None:
    task = tasks.create("deblur")
    assert task.name == "deblur"
    assert task.options == {"blur_sigma": 3.0, "noise_sigma": 0.05, "kernel_size": 61}
    clean = torch.rand(2, 3, 40, 33)
    blurred = tasks.GaussianBlur(61, 3.0)(clean)
    noise = tasks.AdditiveGaussianNoise(0.05)(torch.zeros_like(clean), torch.Generator().manual_seed(4))
    assert torch.allclose(task(clean, torch.Generator().manual_seed(4)), blurred + noise, atol=1e-6)


def test_degraded_is_not_clipped() -> None:
    degraded = tasks.create("deblur")(torch.zeros(1, 3, 32, 32), torch.Generator().manual_seed(0))
    assert degraded.min() < -0.1


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (13, 5), (61, 64)])
def test_any_size_and_reproducible(size: tuple[int, int]) -> None:
    clean = torch.rand(2, 3, *size)
    task = tasks.create("deblur")
    first, again = (task(clean, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == clean.shape and first.dtype == torch.float32
    assert torch.equal(first, again)


def test_options_replace_defaults() -> None:
    clean = torch.rand(1, 3, 20, 20)
    task = tasks.create("deblur", noise_sigma=0, blur_sigma=1.5, kernel_size=13)
    assert task.options == {"blur_sigma": 1.5, "noise_sigma": 0.0, "kernel_size": 13}
    assert torch.equal(task(clean), tasks.GaussianBlur(13, 1.5)(clean))


@pytest.mark.parametrize(
    "options",
    [
        {"noise_sigma": -0.1},
        {"noise_sigma": float("nan")},
        {"noise_sigma": "strong"},
        {"noise_sigma": True},
        {"blur_sigma": 0},
        {"kernel_size": 60},
        {"kernel_size": 3.5},
        {"kernel_size": 10**9},
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RangeError):
        tasks.create("deblur", **options)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="deblur"):
        tasks.create("unblur")
    with pytest.raises(UnknownNameError, match="blur_sigma"):
        tasks.create("deblur", sigma=3.0)
    with pytest.raises(UnknownNameError):
        tasks.task_options("unblur")


def test_declared_options_hold_their_defaults() -> None:
    for name in tasks.list_tasks():
        for option_name, option in tasks.task_options(name).items():
            assert option.checked(option_name, option.default) == option.default


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 3, 0, 8), (0, 3, 8, 8)])
def test_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\(B, 3, H, W\)"):
        tasks.create("deblur")(torch.zeros(shape))


def test_wrong_type_is_refused() -> None:
    with pytest.raises(DtypeError, match="uint8"):
        tasks.create("deblur")(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
