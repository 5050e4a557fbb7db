"""Feature maps worked on band by band, in passes without gradients: what is needed on the way stays in the cache.

On a large map a fresh tensor costs more than filling it does, since the system hands out its memory page by page.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from serpent_ir.ops import native_block
from serpent_ir.ops.backends import runs_natively

BAND_BYTES = 4 * 2**20
"""What the buffers of a band may take: the caches of a processor hold it."""

Band = tuple[slice, slice]
"""The images and the rows that a band covers."""


def can_go_in_bands(x: Tensor, *modules: nn.Module) -> bool:
    """Whether a module may compute its output from x with the parameters of its `modules`, past their `forward`.

    True on the CPU in float32 and float64, with compiled kernels, when nobody needs gradients or looks on: no autocast,
    no tracing, no mode or transform that sees operators, no hooks on the modules, none of them replaced or altered.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_grad_enabled():
        return False
    if torch.is_autocast_enabled("cpu") or torch._C._len_torch_dispatch_stack() or type(x) is not Tensor:
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return False
    if x.device.type != "cpu" or x.dtype not in native_block.DTYPES or not runs_natively(x.device):
        return False
    return all(map(is_plain, modules))


def may_overwrite(model: nn.Module) -> bool:
    """Whether nobody but `model` sees the maps inside it: no gradients, no hooks anywhere in it."""
    return not torch.is_grad_enabled() and not any(map(is_watched, model.modules()))


def is_plain(module: nn.Module) -> bool:
    """Whether it is one of a Serpent block's own modules, and its parameters tell all that it does."""
    if is_watched(module) or "forward" in module.__dict__:
        return False
    if any(type(parameter) is not nn.Parameter for parameter in module._parameters.values() if parameter is not None):
        return False
    if type(module) is nn.Linear:
        return module.bias is None
    if type(module) is nn.LayerNorm:
        return module.weight is not None and module.bias is not None
    return (
        type(module) is nn.Conv2d
        and (module.kernel_size, module.stride, module.dilation) == ((3, 3), (1, 1), (1, 1))
        and (module.padding, module.padding_mode, module.groups) == ((1, 1), "zeros", module.in_channels)
        and module.bias is not None
    )


def is_watched(module: nn.Module) -> bool:
    hooks = module._forward_hooks, module._forward_pre_hooks, _global_forward_hooks, _global_forward_pre_hooks
    return any(hooks)


def bands(x: Tensor, numbers: int) -> list[Band]:
    """The bands of x (B, H, W, ...): several whole images each, or at least two rows of one, the first the largest.

    numbers: how many of x's type the buffers of a band take for each of its pixels.
    """
    batch, height, width = x.shape[:3]
    row = width * numbers * x.element_size()
    images = BAND_BYTES // (height * row)
    if images:
        return [(slice(i, min(i + images, batch)), slice(0, height)) for i in range(0, batch, images)]
    rows = max(2, BAND_BYTES // row)
    starts = range(0, height, rows)
    return [(slice(i, i + 1), slice(r, min(r + rows, height))) for i in range(batch) for r in starts]


def pixel_bands(numbers: int, *maps: Tensor) -> list[tuple[Tensor, ...]]:
    """For each map (B, H, W, d), dense, its bands of pixels as (n, d), all of one size except for the last.

    numbers: how many of the maps' type the buffers of a band take for each of its pixels.
    """
    count = max(1, BAND_BYTES // (numbers * maps[0].element_size()))
    return [x.view(-1, x.shape[-1]).split(count) for x in maps]


class Projection:
    """`norm`, then the product with `matrix` (c, d), of one part of a map after the other."""

    def __init__(self, norm: nn.LayerNorm, matrix: Tensor) -> None:
        self.norm, self.matrix, self.buffer = norm, matrix, matrix.new_empty(0, 0)

    def __call__(self, x: Tensor, out: Tensor) -> Tensor:
        """x (n, c) to `out` (n, d), both dense; returns `out`."""
        if len(self.buffer) != len(x):
            self.buffer = self.buffer[: len(x)] if len(self.buffer) > len(x) else torch.empty_like(x)
        return torch.mm(layer_norm(self.norm, x, self.buffer), self.matrix, out=out)


def layer_norm(norm: nn.LayerNorm, x: Tensor, out: Tensor) -> Tensor:
    """`norm` of x over its last dimension, into `out`, which may be x."""
    return native_block.gate(x, None, norm.weight, norm.bias, norm.eps, out)
