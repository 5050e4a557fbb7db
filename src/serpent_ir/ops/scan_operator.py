"""The torch operator `serpent::scan`: schema, backends, shapes for tracing, autograd.

Its arguments are the fields of `ScanProblem`, the name of a backend ("" for the usual choice), and whether states are
kept for a backward pass. It returns y (B, L, D), the last state of every direction (B, K, D, N), which carries no
gradient, and the states that the backend keeps for a backward pass (B, K, any number, N, D), none unless asked for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from serpent_ir.ops import native, portable, triton
from serpent_ir.ops.backends import choose
from serpent_ir.ops.problem import ScanProblem

_IMPLEMENTATIONS: dict[str, Any] = {"native": native, "triton": triton, "portable": portable}
_FIELDS = 12  # of ScanProblem
_PROBLEM = (
    "Tensor x, Tensor dt, Tensor b, Tensor c, Tensor a, Tensor? dt_weight, Tensor? dt_bias, Tensor? skip, "
    "Tensor? weight, SymInt height, SymInt width, bool softplus"
)


# Not `torch.library.custom_op`, which takes three times as long for a call.
_library = torch.library.Library("serpent", "FRAGMENT")
_library.define(
    f"scan({_PROBLEM}, str backend, bool keep_states) -> (Tensor, Tensor, Tensor)", tags=torch.Tag.pt2_compliant_tag
)
_library.define(
    f"scan_backward(Tensor grad_y, Tensor kept, {_PROBLEM}, str backend) -> Tensor[]", tags=torch.Tag.pt2_compliant_tag
)
scan = torch.ops.serpent.scan.default
scan_backward = torch.ops.serpent.scan_backward.default


def _backend(p: ScanProblem, asked: str) -> str:
    return choose(p.x.device, asked or None, p.x.dtype).backend


def _implementation(p: ScanProblem, asked: str) -> Any:
    return _IMPLEMENTATIONS[_backend(p, asked)]


def _scan(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    problem, (backend, keep_states) = ScanProblem(*arguments[:_FIELDS]), arguments[_FIELDS:]
    problem.check()
    y, last, kept = _implementation(problem, backend).forward(problem, keep_states)
    return y.to(problem.x.dtype), last, kept


def _scan_shapes(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    p, (backend, keep_states) = ScanProblem(*arguments[:_FIELDS]), arguments[_FIELDS:]
    kept = _implementation(p, backend).kept_states(p) if keep_states else 0
    return (
        p.x.new_empty(p.x.shape),
        p.a.new_empty(p.batch, p.directions, p.channels, p.states),
        p.a.new_empty(p.batch, p.directions, kept, p.states, p.channels),
    )


def _scan_backward(grad_y: Tensor, kept: Tensor, *arguments: Any) -> list[Tensor]:
    """Gradients of those among the problem's tensors that are not None, in their order."""
    problem, (backend,) = ScanProblem(*arguments[:_FIELDS]), arguments[_FIELDS:]
    implementation = _implementation(problem, backend)
    problem.check_backward(grad_y, kept, implementation.kept_states(problem))
    found = zip(implementation.backward(problem, grad_y, kept), problem.tensors, strict=True)
    return [gradient.to(tensor.dtype) for gradient, tensor in found if gradient is not None and tensor is not None]


def _scan_backward_shapes(grad_y: Tensor, kept: Tensor, *arguments: Any) -> list[Tensor]:
    tensors = ScanProblem(*arguments[:_FIELDS]).tensors
    return [tensor.new_empty(tensor.shape) for tensor in tensors if tensor is not None]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    problem, (backend, keep_states) = ScanProblem(*inputs[:_FIELDS]), inputs[_FIELDS:]
    if not keep_states:
        raise RuntimeError("serpent::scan was called with keep_states=False, but a gradient is needed")
    ctx.settings = (problem.height, problem.width, problem.softplus)
    # A backward pass may run outside of use_backend, and elsewhere than where it was asked for.
    ctx.backend = _backend(problem, backend)
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.save_for_backward(output[2], *problem.tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_y: Tensor | None, *_: Any) -> tuple[Any, ...]:
    kept, *tensors = ctx.saved_tensors
    if grad_y is None:
        return (None,) * (_FIELDS + 2)
    found = iter(scan_backward(grad_y, kept, *tensors, *ctx.settings, ctx.backend))
    return (*(None if tensor is None else next(found) for tensor in tensors), *(None,) * (len(ctx.settings) + 2))


def no_second_gradient(ctx: Any, *_: Any) -> Any:
    """The gradient of an operator that is a gradient itself: there is none, and zeros in its place would be a lie."""
    raise NotImplementedError("a gradient of serpent's gradients (create_graph=True) is not implemented")


_library.impl("scan", _scan, "CompositeExplicitAutograd")
_library.impl("scan_backward", _scan_backward, "CompositeExplicitAutograd")
torch.library.register_fake("serpent::scan", _scan_shapes, lib=_library)
torch.library.register_fake("serpent::scan_backward", _scan_backward_shapes, lib=_library)
torch.library.register_autograd("serpent::scan", _backward, setup_context=_setup_context, lib=_library)
torch.library.register_autograd("serpent::scan_backward", no_second_gradient, lib=_library)
