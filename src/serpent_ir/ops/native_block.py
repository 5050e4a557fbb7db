"""The compiled kernels for the pointwise parts of a VSS block (csrc/block_kernel.hpp), as functions of tensors.

The compiled part gets bare addresses and trusts them, so all is checked here: tensors on the CPU, of one type (float32
or float64), of the right shapes, and outputs dense; not whether an output shares memory with another argument. Shapes
are those of `block.py`. Results have the same bits for any number of threads.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
from torch import Tensor

from serpent_ir.errors import DeviceError, DtypeError, ShapeError
from serpent_ir.ops import native

DTYPES = (torch.float32, torch.float64)
HALF_DTYPES = (torch.bfloat16, torch.float16)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, rows_above: bool = False, rows_below: bool = False
) -> Tensor:
    """`out` (B, H, W, D), dense: SiLU of the depthwise convolution of x (B, H, W, D); returns `out`.

    With `rows_above` the row before the first lies in x's memory too, with `rows_below` that after the last, one row's
    stride away: x is a band of a larger map. The caller answers for that; other rows outside count as zeros.
    """
    check_convolution(x, weight, bias)
    check_output(out, "x", x)
    x, weight, bias = with_dense_channels(x), weight.contiguous(), bias.contiguous()
    _kernels(x).convolve(
        *x.shape, x.data_ptr(), *x.stride()[:3], rows_above, rows_below, *_addresses(weight, bias, out), _threads()
    )  # fmt: skip
    return out


def convolve_backward(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, given that of the output; the output before SiLU is computed anew."""
    check_convolution(x, weight, bias)
    check_like("the gradient", grad, "x", x)
    x, weight, bias, grad = with_dense_channels(x), weight.contiguous(), bias.contiguous(), grad.contiguous()
    before, grad_x = torch.empty_like(grad), torch.empty_like(grad)
    grad_weight, grad_bias = weight.new_empty(weight.shape), bias.new_empty(bias.shape)
    _kernels(x).convolve_backward(
        *x.shape, x.data_ptr(), *x.stride()[:3],
        *_addresses(weight, bias, grad, before, grad_x, grad_weight, grad_bias), _threads(),
    )  # fmt: skip
    return grad_x, grad_weight, grad_bias


def gate(y: Tensor, z: Tensor | None, weight: Tensor, bias: Tensor, epsilon: float, out: Tensor) -> Tensor:
    """`out` (..., D), dense, may be y: LayerNorm(y) * SiLU(z), or LayerNorm(y) when z is None; returns `out`."""
    check_gate(y, z, weight, bias)
    check_output(out, "y", y)
    y, weight, bias = y.contiguous(), weight.contiguous(), bias.contiguous()
    _rows_alive, z_address, z_stride = _rows(z)
    channels = y.shape[-1]
    _kernels(y).gate(
        y.numel() // channels, channels, y.data_ptr(), z_address, z_stride, *_addresses(weight, bias), epsilon,
        out.data_ptr(), _threads(),
    )  # fmt: skip
    return out


def gate_backward(
    grad: Tensor, y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of y, z, weight and bias, given that of the output; mean and deviation are computed anew."""
    check_gate(y, z, weight, bias)
    check_like("the gradient", grad, "y", y)
    y, weight, bias, grad = y.contiguous(), weight.contiguous(), bias.contiguous(), grad.contiguous()
    _rows_alive, z_address, z_stride = _rows(z)
    grads = y.new_empty(y.shape), y.new_empty(y.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape)
    channels = y.shape[-1]
    _kernels(y).gate_backward(
        y.numel() // channels, channels, y.data_ptr(), z_address, z_stride, *_addresses(weight, bias), epsilon,
        *_addresses(grad, *grads), _threads(),
    )  # fmt: skip
    return grads


def check_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Raises ShapeError, DtypeError or DeviceError unless the arguments of a convolution go together."""
    if x.ndim != 4 or 0 in x.shape:
        raise ShapeError(f"x has shape {tuple(x.shape)}", "(B, H, W, D), nothing empty")
    channels = x.shape[3]
    if weight.shape != (channels, 1, 3, 3) or bias.shape != (channels,):
        came = f"weight {tuple(weight.shape)} and bias {tuple(bias.shape)}"
        raise ShapeError(came, f"(D, 1, 3, 3) and (D,) with D = {channels}")
    _check_parameter("x", x, "weight", weight)
    _check_parameter("x", x, "bias", bias)


def check_gate(y: Tensor, z: Tensor | None, weight: Tensor, bias: Tensor) -> None:
    """Raises ShapeError, DtypeError or DeviceError unless the arguments of a gate go together."""
    if y.ndim == 0 or 0 in y.shape:
        raise ShapeError(f"y has shape {tuple(y.shape)}", "(..., D), nothing empty")
    channels = y.shape[-1]
    if weight.shape != (channels,) or bias.shape != (channels,):
        came = f"weight {tuple(weight.shape)} and bias {tuple(bias.shape)}"
        raise ShapeError(came, f"(D,) with D = {channels}")
    _check_parameter("y", y, "weight", weight)
    _check_parameter("y", y, "bias", bias)
    if z is not None:
        check_like("z", z, "y", y)


def with_dense_channels(x: Tensor) -> Tensor:
    """x if the numbers of a pixel lie side by side, else a copy in which they do."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _check_parameter(first_name: str, first: Tensor, name: str, tensor: Tensor) -> None:
    """As `_check_same`; a parameter of a map of half precision may be float32."""
    mixed = tensor.dtype == torch.float32 and first.dtype in HALF_DTYPES
    _check_same(first_name, first, name, tensor, mixed)


def _check_same(first_name: str, first: Tensor, name: str, tensor: Tensor, mixed: bool = False) -> None:
    if tensor.dtype != first.dtype and not mixed:
        raise DtypeError(f"{first_name} of {first.dtype} and {name} of {tensor.dtype}", "one type for all")
    if tensor.device != first.device:
        raise DeviceError(f"{name} lies on {tensor.device}, {first_name} on {first.device}", "one device for all")


def check_like(name: str, tensor: Tensor, first_name: str, first: Tensor) -> None:
    if tensor.shape != first.shape:
        raise ShapeError(f"{name} has shape {tuple(tensor.shape)}", f"{first_name}'s, {tuple(first.shape)}")
    _check_same(first_name, first, name, tensor)


def check_output(out: Tensor, first_name: str, first: Tensor) -> None:
    check_like("out", out, first_name, first)
    if not out.is_contiguous():
        raise ShapeError(f"out has strides {out.stride()}", "a dense tensor")


def _kernels(x: Tensor) -> Any:
    """The compiled functions for x's type; x and what has been compared with it lie on the CPU from here on."""
    if x.device.type != "cpu":
        raise DeviceError(f"a tensor on {x.device}", "the CPU")
    return _kernels_of(x.dtype, os.environ.get(native.INSTRUCTION_SET_VARIABLE))


@functools.cache
def _kernels_of(dtype: torch.dtype, _asked: str | None) -> Any:
    """Those of the instruction set in use, which follows from the variable that was asked for."""
    if dtype not in DTYPES:
        raise DtypeError(f"{dtype}", "float32 or float64")
    make = native._native.block_float32 if dtype == torch.float32 else native._native.block_float64
    return make(native.instruction_set())


def _threads() -> int:
    return torch.get_num_threads()


def _addresses(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _rows(z: Tensor | None) -> tuple[Tensor | None, int, int]:
    """z (..., D) with one stride from pixel to pixel, to be kept while in use; its address and that stride."""
    if z is None:
        return None, 0, 0
    rows = with_dense_channels(z).reshape(-1, z.shape[-1])
    return rows, rows.data_ptr(), rows.stride(0)
