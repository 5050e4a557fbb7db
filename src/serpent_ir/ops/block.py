"""What a VSS block does besides matrix products and the scan, as two functions and their torch operators.

On CPU tensors of one type, float32 or float64, and where the scan runs on Triton, `conv_silu` and `norm_gate` are the
operators `serpent::conv_silu` and `serpent::norm_gate`: compiled or Triton kernels that keep only their arguments for
the backward pass, or, on the portable backend, plain torch. Everything else (other devices and types, autocast on
the CPU) is plain torch with its own autograd. Unlike it, the operators refuse empty maps and second gradients.

The operators are defined with `torch.library.Library`: a call costs a third of what `torch.library.custom_op` takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from serpent_ir.ops import native_block
from serpent_ir.ops.backends import choose, runs_natively
from serpent_ir.ops.native_block import DTYPES, check_convolution, check_gate
from serpent_ir.ops.scan_operator import no_second_gradient

aten, ops = torch.ops.aten, torch.ops.serpent
MOST_CHANNELS = 4096  # that the Triton kernel of a norm takes: it holds whole pixels


def conv_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """SiLU of a depthwise 3x3 convolution with zero padding.

    Args:
        x: (B, H, W, D), channels last; a slice of a wider tensor need not be copied. Any floating type.
        weight: (D, 1, 3, 3), as nn.Conv2d has it with groups=D. bias: (D,).

    Returns:
        (B, H, W, D), dense.

    Raises:
        ShapeError, DtypeError, DeviceError: where it is an operator (see above), when the arguments do not go together;
        torch's own errors otherwise.

    Source: Serpent, section 3 and figure 2.
    """
    return ops.conv_silu(x, weight, bias) if _has_operator([x], [weight, bias]) else _conv_silu(x, weight, bias)


def norm_gate(y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, epsilon: float = 1e-5) -> Tensor:
    """LayerNorm(y) * SiLU(z) over the last dimension, with nn.LayerNorm's weight, bias and epsilon.

    Args:
        y, z: (..., D); z may be a slice of a wider tensor. Any floating type.
        weight, bias: (D,).

    Returns:
        (..., D), dense.

    Raises:
        ShapeError, DtypeError, DeviceError: where it is an operator (see above), when the arguments do not go together;
        torch's own errors otherwise.

    Source: Serpent, section 3 and figure 2.
    """
    if _has_operator([y, z], [weight, bias]):
        return ops.norm_gate(y, z, weight, bias, epsilon)
    return _norm_gate(y, z, weight, bias, epsilon)


def _has_operator(maps: Sequence[Tensor], parameters: Sequence[Tensor]) -> bool:
    device, dtype = maps[0].device, maps[0].dtype
    if device.type not in ("cpu", "cuda") or any(tensor.dtype != dtype for tensor in maps):
        return False
    if device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return False
    if device.type == "cpu" and dtype in DTYPES:
        return all(tensor.dtype == dtype for tensor in parameters)
    fitting = all(tensor.dtype in (dtype, torch.float32) for tensor in parameters)
    return fitting and maps[0].shape[-1] <= MOST_CHANNELS and _runs_on_triton(device, dtype)


def _runs_on_triton(device: torch.device, dtype: torch.dtype) -> bool:
    return choose(device, None, dtype).backend == "triton"


# All that torch.compiler.assume_constant_result does, which by itself would import torch's whole compiler: seconds.
_runs_on_triton._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _backend(x: Tensor) -> str:
    """The backend for maps like x."""
    return "native" if runs_natively(x.device) else choose(x.device, None, x.dtype).backend


def _kernels(x: Tensor, backend: str) -> Any:
    """The functions that have the kernels of a backend ("" for the usual choice); None for plain torch."""
    backend = backend or _backend(x)
    if backend == "triton":
        from serpent_ir.ops import triton_block

        return triton_block
    return native_block if backend == "native" else None


def _conv_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.silu(_convolution(x, weight, bias))


def _convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=x.shape[3]).permute(0, 2, 3, 1)


def _norm_gate(y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    return F.layer_norm(y, y.shape[-1:], weight, bias, epsilon) * F.silu(z)


# -- the operators -----------------------------------------------------------------------------------------------------

_library = torch.library.Library("serpent", "FRAGMENT")
# backend: that of the kernels, "" for the usual choice; a backward pass, which may run elsewhere, stays with its own.
_CONV = "Tensor x, Tensor weight, Tensor bias, str backend=''"
_GATE = "Tensor y, Tensor z, Tensor weight, Tensor bias, float epsilon, str backend=''"


def _define(name: str, schema: str) -> Any:
    """Registers the decorated function as the operator `serpent::name`."""
    _library.define(f"{name}{schema}", tags=torch.Tag.pt2_compliant_tag)

    def implement(function: Any) -> Any:
        _library.impl(name, function, "CompositeExplicitAutograd")
        return function

    return implement


@_define("conv_silu", f"({_CONV}) -> Tensor")
def _(x: Tensor, weight: Tensor, bias: Tensor, backend: str = "") -> Tensor:
    if kernels := _kernels(x, backend):
        return kernels.convolve(x, weight, bias, x.new_empty(x.shape))
    check_convolution(x, weight, bias)
    return _conv_silu(x, weight, bias).contiguous()


@_define("conv_silu_backward", f"(Tensor grad, {_CONV}) -> (Tensor, Tensor, Tensor)")
def _(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, backend: str = "") -> tuple[Tensor, ...]:
    if kernels := _kernels(x, backend):
        return kernels.convolve_backward(grad, x, weight, bias)
    before = aten.silu_backward(grad, _convolution(x, weight, bias)).permute(0, 3, 1, 2)
    settings = bias.shape, (1, 1), (1, 1), (1, 1), False, (0, 0), x.shape[3], (True, True, True)
    grad_x, grad_weight, grad_bias = aten.convolution_backward(before, x.permute(0, 3, 1, 2), weight, *settings)
    return grad_x.permute(0, 2, 3, 1).contiguous(), grad_weight.contiguous(), grad_bias


@_define("norm_gate", f"({_GATE}) -> Tensor")
def _(y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, epsilon: float, backend: str = "") -> Tensor:
    if kernels := _kernels(y, backend):
        return kernels.gate(y, z, weight, bias, epsilon, y.new_empty(y.shape))
    check_gate(y, z, weight, bias)
    return _norm_gate(y, z, weight, bias, epsilon).contiguous()


@_define("norm_gate_backward", f"(Tensor grad, {_GATE}) -> (Tensor, Tensor, Tensor, Tensor)")
def _(
    grad: Tensor, y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, epsilon: float, backend: str = ""
) -> tuple[Tensor, ...]:
    if kernels := _kernels(y, backend):
        return kernels.gate_backward(grad, y, z, weight, bias, epsilon)
    normal, mean, scale = aten.native_layer_norm(y, y.shape[-1:], weight, bias, epsilon)
    grad_z = aten.silu_backward(grad * normal, z)
    through = grad * F.silu(z)
    rest = aten.native_layer_norm_backward(through, y, y.shape[-1:], mean, scale, weight, bias, (True, True, True))
    return rest[0].contiguous(), grad_z.contiguous(), rest[1], rest[2]


# -- their shapes for tracing, and their gradients ---------------------------------------------------------------------


def _shapes_as(*positions: int) -> Any:
    """A function that makes empty tensors of the shapes of the arguments at these positions."""

    def make(*arguments: Any) -> Any:
        made = tuple(arguments[position].new_empty(arguments[position].shape) for position in positions)
        return made if len(made) > 1 else made[0]

    return make


for _name, _positions in {
    "conv_silu": (0,),
    "conv_silu_backward": (1, 2, 3),
    "norm_gate": (0,),
    "norm_gate_backward": (1, 2, 3, 4),
}.items():
    torch.library.register_fake(f"serpent::{_name}", _shapes_as(*_positions), lib=_library)


def _save_convolution(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, backend = inputs
    ctx.backend = backend or _backend(tensors[0])
    ctx.save_for_backward(*tensors)


def _convolution_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (*ops.conv_silu_backward(grad, *ctx.saved_tensors, ctx.backend), None)


def _save_gate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.epsilon, backend = inputs
    ctx.backend = backend or _backend(tensors[0])
    ctx.save_for_backward(*tensors)


def _gate_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (*ops.norm_gate_backward(grad, *ctx.saved_tensors, ctx.epsilon, ctx.backend), None, None)


torch.library.register_autograd(
    "serpent::conv_silu", _convolution_gradients, setup_context=_save_convolution, lib=_library
)
torch.library.register_autograd("serpent::norm_gate", _gate_gradients, setup_context=_save_gate, lib=_library)
for _name in ("conv_silu_backward", "norm_gate_backward"):
    torch.library.register_autograd(f"serpent::{_name}", no_second_gradient, lib=_library)
