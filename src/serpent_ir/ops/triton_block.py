"""The pointwise parts of a VSS block on a GPU: the Triton kernels (triton_block_kernels.py) as functions of tensors.

The same functions as `native_block`, for float32, bfloat16 and float16 maps with parameters of their type or float32.
Arithmetic is float32. Derivations: ops/README.md. Sums over pixels are those of fixed parts of the map, added in order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from serpent_ir.errors import ShapeError
from serpent_ir.ops import triton_block_kernels as kernels
from serpent_ir.ops.native_block import check_convolution, check_gate, check_like, check_output, with_dense_channels
from serpent_ir.ops.triton import multiprocessors, on_device, power_of_two

NUMBERS = {"one pass": 1024, "with sums": 512}
"""Numbers of a map that a program works on at a time; sums over pixels take registers of their own."""
PROGRAMS_PER_MULTIPROCESSOR = 8
"""Programs that sum over pixels: each leaves a partial sum."""


def convolve(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """`out` (B, H, W, D), dense: SiLU of the depthwise convolution of x (B, H, W, D); returns `out`."""
    check_convolution(x, weight, bias)
    check_output(out, "x", x)
    _convolve(with_dense_channels(x), _taps(weight), bias.contiguous(), out, forward=True)
    return out


def convolve_backward(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, given that of the output; the output before SiLU is computed anew."""
    check_convolution(x, weight, bias)
    check_like("the gradient", grad, "x", x)
    x, grad, taps = with_dense_channels(x), grad.contiguous(), _taps(weight)
    before, grad_x = grad.new_empty(grad.shape), grad.new_empty(grad.shape)
    pixels, block, blocks = _cut(x, "with sums")
    tiles = -(-_count(x) // pixels)
    parts = max(1, min(tiles, PROGRAMS_PER_MULTIPROCESSOR * multiprocessors(x.device) // blocks))
    sums = taps.new_empty(parts, 10, x.shape[3])
    with on_device(x.device):
        kernels.convolve_backward[(parts * blocks,)](
            grad, x, taps, bias.contiguous(), before, sums, _count(x), *x.shape[1:], blocks, *x.stride()[:3],
            PIXELS=pixels, BLOCK=block, num_warps=_warps(block),
        )  # fmt: skip
    _convolve(before, taps.flip(0), taps, grad_x, forward=False)
    of_weights, of_bias = sums[:, :9].sum(0), sums[:, 9].sum(0)  # apart: results do not share memory
    return grad_x, of_weights.t().contiguous().view(weight.shape).to(weight.dtype), of_bias.to(bias.dtype)


def gate(y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, epsilon: float, out: Tensor) -> Tensor:
    """`out` (..., D), dense, may be y: LayerNorm(y) * SiLU(z); returns `out`."""
    check_gate(y, z, weight, bias)
    check_output(out, "y", y)
    y, channels = y.contiguous(), y.shape[-1]
    rows = with_dense_channels(z).reshape(-1, channels)
    block = power_of_two(channels)
    pixels = max(1, NUMBERS["one pass"] // block)
    with on_device(y.device):
        kernels.gate[(-(-_count(y) // pixels),)](
            y, rows, weight.contiguous(), bias.contiguous(), out, len(rows), rows.stride(0), channels, epsilon,
            PIXELS=pixels, BLOCK=block, num_warps=_warps(block),
        )  # fmt: skip
    return out


def gate_backward(
    grad: Tensor, y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of y, z, weight and bias, given that of the output; mean and deviation are computed anew."""
    check_gate(y, z, weight, bias)
    check_like("the gradient", grad, "y", y)
    y, grad, channels = y.contiguous(), grad.contiguous(), y.shape[-1]
    rows = with_dense_channels(z).reshape(-1, channels)
    grad_y, grad_z = y.new_empty(y.shape), y.new_empty(y.shape)
    block = power_of_two(channels)
    pixels = max(1, NUMBERS["with sums"] // block)
    programs = min(-(-_count(y) // pixels), PROGRAMS_PER_MULTIPROCESSOR * multiprocessors(y.device))
    sums = y.new_empty(programs, 2, channels, dtype=torch.float32)
    with on_device(y.device):
        kernels.gate_backward[(programs,)](
            grad, y, rows, weight.contiguous(), bias.contiguous(), grad_y, grad_z, sums,
            len(rows), rows.stride(0), channels, epsilon, PIXELS=pixels, BLOCK=block, num_warps=_warps(block),
        )  # fmt: skip
    return grad_y, grad_z, sums[:, 0].sum(0).to(weight.dtype), sums[:, 1].sum(0).to(bias.dtype)


def _warps(block: int) -> int:
    """Four, or as many more as the channels of a pixel need to stay in registers."""
    return max(4, min(16, block // 256))


def _count(x: Tensor) -> int:
    """Pixels of a map (..., D). Raises ShapeError for more than the kernels can count."""
    count = x.numel() // x.shape[-1]
    if count >= 2**31 - 2**16:
        raise ShapeError(f"{count} pixels", "fewer than 2^31 for the backend triton")
    return count


def _taps(weight: Tensor) -> Tensor:
    """(D, 1, 3, 3) as (9, D), float32."""
    return weight.flatten(1).t().float().contiguous()


def _cut(x: Tensor, kind: str) -> tuple[int, int, int]:
    """Pixels and channels that a program works on at a time, and how many blocks of channels there are."""
    block = min(128, power_of_two(x.shape[3]))
    return max(1, NUMBERS[kind] // block), block, -(-x.shape[3] // block)


def _convolve(x: Tensor, taps: Tensor, bias: Tensor, out: Tensor, forward: bool) -> None:
    pixels, block, blocks = _cut(x, "one pass")
    count = _count(x)
    with on_device(x.device):
        kernels.convolve[(-(-count // pixels) * blocks,)](
            x, taps, bias, out, count, *x.shape[1:], blocks, *x.stride()[:3],
            FORWARD=forward, PIXELS=pixels, BLOCK=block, num_warps=_warps(block),
        )  # fmt: skip
