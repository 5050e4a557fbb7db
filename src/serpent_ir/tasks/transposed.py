"""The adjoint of a linear map that is given as a function of a tensor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def transposed(linear: Callable[[Tensor], Tensor], y: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A' y, of `shape`, for the map A: x of `shape` -> linear(x), which torch can differentiate: <A x, y> = <x, A' y>.

    The derivative of <A x, y> in x.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = y.new_zeros(shape).requires_grad_()
        (gradient,) = torch.autograd.grad(linear(x), x, grad_outputs=y.detach().clone())
    return gradient
