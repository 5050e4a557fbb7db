"""Wrong shapes, types, devices and values: a named error that says what came and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from serpent_ir.errors import DeviceError, DtypeError, RangeError, ShapeError, UnknownNameError
from serpent_ir.ops import selective_scan, selective_scan_2d

MAP = ("x", "dt_low", "B", "C", "dt_weight", "dt_bias", "A", "D")


def sequence(**changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "u": torch.randn(2, 4, 9),
        "delta": torch.rand(2, 4, 9),
        "A": -torch.rand(4, 3) - 0.1,
        "B": torch.randn(2, 3, 9),
        "C": torch.randn(2, 3, 9),
    }
    return arguments | changes


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"u": torch.randn(4, 9)}, ShapeError, r"u has shape \(4, 9\); expected 3 dimensions, \(B, D, L\)"),
        ({"u": torch.randn(2, 4, 0)}, ShapeError, "at least one element"),
        (
            {"delta": torch.rand(2, 4, 8)},
            ShapeError,
            r"delta has shape \(2, 4, 8\); expected \(B, D, L\) = \(2, 4, 9\)",
        ),
        ({"A": -torch.rand(5, 3)}, ShapeError, r"A has shape \(5, 3\)"),
        ({"B": torch.randn(2, 4, 9)}, ShapeError, r"B has shape \(2, 4, 9\); expected \(B, N, L\) = \(2, 3, 9\)"),
        ({"C": torch.randn(2, 3, 3, 9)}, ShapeError, "3 groups for 4 channels"),
        ({"B": torch.randn(2, 2, 3, 9), "C": torch.randn(2, 4, 3, 9)}, ShapeError, "B has 2 groups and C has 4"),
        ({"D": torch.randn(3)}, ShapeError, r"D has shape \(3,\)"),
        ({"z": torch.randn(2, 4, 1)}, ShapeError, "z has shape"),
        ({"delta_bias": torch.randn(1, 4)}, ShapeError, "delta_bias has shape"),
        ({"u": torch.ones(2, 4, 9, dtype=torch.int64)}, DtypeError, "u has dtype torch.int64; expected float32"),
        ({"A": torch.ones(4, 3, dtype=torch.complex64)}, DtypeError, "A has dtype torch.complex64"),
        ({"C": [1.0]}, DtypeError, "C is a list; expected a torch.Tensor"),
        ({"B": torch.empty(2, 3, 9, device="meta")}, DeviceError, "B lies on meta, u on cpu"),
        ({"A": torch.zeros(4, 3)}, RangeError, "A has entries from 0 to 0; expected negative entries only"),
        ({"A": torch.full((4, 3), float("nan"))}, RangeError, "A has entries from nan"),
        ({"backend": "cuda"}, UnknownNameError, "backend 'cuda'; expected one of native, triton, portable"),
    ],
)
def test_sequence(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        selective_scan(**sequence(**changes))


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("x", torch.randn(2, 5, 8), ShapeError, r"x has shape \(2, 5, 8\); expected 4 dimensions"),
        ("dt_low", torch.randn(1, 3, 5, 4, 9), ShapeError, r"dt_low has shape .*expected \(B, H, W, K, R\)"),
        ("B", torch.randn(1, 3, 5, 2, 3), ShapeError, "B has shape"),
        ("C", torch.randn(1, 5, 3, 4, 3), ShapeError, "C has shape"),
        ("dt_weight", torch.randn(4, 7, 2), ShapeError, "dt_weight has shape"),
        ("dt_bias", torch.randn(4), ShapeError, "dt_bias has shape"),
        ("D", torch.randn(8), ShapeError, "D has shape"),
        ("A", -torch.rand(3, 8, 3), ShapeError, "A has 3 directions; expected K = 1, 2 or 4"),
        ("A", torch.rand(4, 8, 3), RangeError, "expected negative entries only. Parametrise A as -exp"),
        ("x", torch.ones(1, 3, 5, 8, dtype=torch.uint8), DtypeError, "x has dtype torch.uint8"),
        ("D", torch.empty(4, 8, device="meta"), DeviceError, "D lies on meta"),
    ],
)
def test_map(
    map_problem: Callable[..., list[Tensor]], name: str, value: Tensor, error: type[Exception], message: str
) -> None:
    arguments = dict(zip(MAP, map_problem(1, 3, 5, 8, 4, 3), strict=True)) | {name: value}
    with pytest.raises(error, match=message):
        selective_scan_2d(**arguments)
