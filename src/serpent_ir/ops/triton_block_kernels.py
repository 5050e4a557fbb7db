"""The Triton kernels for the pointwise parts of a VSS block; triton_block.py calls them, ops/README.md derives them.

A program works on PIXELS pixels and BLOCK channels at a time, tensors (PIXELS, BLOCK). Maps are (pixels, D), dense
unless strides are said; z_stride and pixel_stride are numbers from a pixel to the next. Arithmetic is float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

SIZES = ["pixels", "height", "width", "blocks"]
"""What is different for every image: no kernel is compiled anew for it."""


@triton.jit
def _normalise(value, there, mask, D, epsilon):
    """(value - mean) / deviation over the channels, zero where masked, and the deviation; one where no pixel is."""
    mean = tl.sum(value, axis=1, keep_dims=True) / D
    centred = tl.where(mask, value - mean, 0.0)
    deviation = tl.sqrt(tl.sum(centred * centred, axis=1, keep_dims=True) / D + epsilon)
    deviation = tl.where(there, deviation, 1.0)
    return centred / deviation, deviation


@triton.jit(do_not_specialize=SIZES)
def gate(
    y, z, weight, bias, out, pixels, z_stride, D, epsilon,
    PIXELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """LayerNorm(y) * SiLU(z) for PIXELS pixels of all D <= BLOCK channels."""
    pixel = (tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[:, None]).to(tl.int64)
    d = tl.arange(0, BLOCK)[None, :]
    mask = (pixel < pixels) & (d < D)
    value = tl.load(y + pixel * D + d, mask=mask, other=0.0).to(tl.float32)
    normal, _ = _normalise(value, pixel < pixels, mask, D, epsilon)
    result = normal * tl.load(weight + d, mask=d < D).to(tl.float32) + tl.load(bias + d, mask=d < D).to(tl.float32)
    opening = tl.load(z + pixel * z_stride + d, mask=mask, other=0.0).to(tl.float32)
    result *= opening * tl.sigmoid(opening)
    tl.store(out + pixel * D + d, result, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def gate_backward(
    grad, y, z, weight, bias, grad_y, grad_z, sums, pixels, z_stride, D, epsilon,
    PIXELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of y and z; sums over a program's pixels for weight and bias in `sums` (programs, 2, D)."""
    d = tl.arange(0, BLOCK)[None, :]
    scale = tl.load(weight + d, mask=d < D, other=0.0).to(tl.float32)
    shift = tl.load(bias + d, mask=d < D, other=0.0).to(tl.float32)
    of_weight = tl.zeros([PIXELS, BLOCK], tl.float32)
    of_bias = tl.zeros([PIXELS, BLOCK], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(pixels, PIXELS), tl.num_programs(0)):
        pixel = (tile * PIXELS + tl.arange(0, PIXELS)[:, None]).to(tl.int64)
        mask = (pixel < pixels) & (d < D)
        value = tl.load(y + pixel * D + d, mask=mask, other=0.0).to(tl.float32)
        normal, deviation = _normalise(value, pixel < pixels, mask, D, epsilon)
        gate = tl.load(z + pixel * z_stride + d, mask=mask, other=0.0).to(tl.float32)
        into = tl.load(grad + pixel * D + d, mask=mask, other=0.0).to(tl.float32)
        opened = tl.sigmoid(gate)
        of_gate = into * (normal * scale + shift) * opened * (1.0 + gate * (1.0 - opened))
        tl.store(grad_z + pixel * D + d, of_gate, mask=mask)
        into *= gate * opened
        of_weight += into * normal
        of_bias += into
        into *= scale
        mean = tl.sum(into, axis=1, keep_dims=True) / D
        along = tl.sum(into * normal, axis=1, keep_dims=True) / D
        tl.store(grad_y + pixel * D + d, (into - mean - normal * along) / deviation, mask=mask)
    sums += tl.program_id(0) * 2 * D + d
    tl.store(sums, tl.sum(of_weight, axis=0, keep_dims=True), mask=d < D)
    tl.store(sums + D, tl.sum(of_bias, axis=0, keep_dims=True), mask=d < D)


@triton.jit
def _neighbours(x, pixel, d, height, width, image_stride, row_stride, pixel_stride, mask):
    """The 3 x 3 pixels around each of `pixel` (PIXELS, 1), numbers in an image after the other; zeros outside."""
    column = pixel % width
    row = pixel // width % height
    image = (pixel // width // height).to(tl.int64)
    centre = image * image_stride + row.to(tl.int64) * row_stride + column * pixel_stride + d
    values = ()
    for i in tl.static_range(-1, 2):
        for j in tl.static_range(-1, 2):
            inside = (row + i >= 0) & (row + i < height) & (column + j >= 0) & (column + j < width)
            value = tl.load(x + centre + i * row_stride + j * pixel_stride, mask=mask & inside, other=0.0)
            values = values + (value.to(tl.float32),)
    return values


@triton.jit
def _convolved(values, weight, bias, d, D, BIAS: tl.constexpr):
    """The convolution of `values` (a tuple of 9) with weight (9, D)."""
    total = tl.load(bias + d, mask=d < D, other=0.0).to(tl.float32) if BIAS else 0.0
    for tap in tl.static_range(9):
        total += values[tap] * tl.load(weight + tap * D + d, mask=d < D, other=0.0).to(tl.float32)
    return total


@triton.jit(do_not_specialize=SIZES)
def convolve(
    x, weight, bias, out, pixels, height, width, D, blocks, image_stride, row_stride, pixel_stride,
    FORWARD: tl.constexpr, PIXELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """SiLU of the convolution with its bias; when not FORWARD, the convolution alone."""
    pixel = tl.program_id(0) // blocks * PIXELS + tl.arange(0, PIXELS)[:, None]
    d = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    mask = (pixel < pixels) & (d < D)
    values = _neighbours(x, pixel, d, height, width, image_stride, row_stride, pixel_stride, mask)
    result = _convolved(values, weight, bias, d, D, FORWARD)
    if FORWARD:
        result *= tl.sigmoid(result)
    tl.store(out + pixel.to(tl.int64) * D + d, result, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def convolve_backward(
    grad, x, weight, bias, before, sums, pixels, height, width, D, blocks, image_stride, row_stride, pixel_stride,
    PIXELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient `before` SiLU; sums over a program's pixels for weights and bias in `sums` (parts, 10, D)."""
    d = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    part, parts = tl.program_id(0) // blocks, tl.num_programs(0) // blocks
    of_weights = ()
    for _ in tl.static_range(9):
        of_weights = of_weights + (tl.zeros([PIXELS, BLOCK], tl.float32),)
    of_bias = tl.zeros([PIXELS, BLOCK], tl.float32)
    for tile in range(part, tl.cdiv(pixels, PIXELS), parts):
        pixel = tile * PIXELS + tl.arange(0, PIXELS)[:, None]
        mask = (pixel < pixels) & (d < D)
        values = _neighbours(x, pixel, d, height, width, image_stride, row_stride, pixel_stride, mask)
        result = _convolved(values, weight, bias, d, D, True)
        opened = tl.sigmoid(result)
        into = tl.load(grad + pixel.to(tl.int64) * D + d, mask=mask, other=0.0).to(tl.float32)
        into *= opened * (1.0 + result * (1.0 - opened))
        tl.store(before + pixel.to(tl.int64) * D + d, into, mask=mask)
        of_bias += into
        more = ()
        for tap in tl.static_range(9):
            more = more + (of_weights[tap] + into * values[tap],)
        of_weights = more
    sums += part * 10 * D + d
    for tap in tl.static_range(9):
        tl.store(sums + tap * D, tl.sum(of_weights[tap], axis=0, keep_dims=True), mask=d < D)
    tl.store(sums + 9 * D, tl.sum(of_bias, axis=0, keep_dims=True), mask=d < D)
