"""The rival of the GPU scan: Mamba's CUDA kernel, fed with the four directions as four times as many channels."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from serpent_ir.efficiency.cell import one_line
from serpent_ir.machine import package_version
from serpent_ir.ops import selective_scan

DIRECTIONS = 4
MOST_ELEMENTS = 2**32  # of one tensor: its offsets are 32 bits wide


@dataclass(frozen=True)
class Rival:
    """scan: y (B, 4 D, L) of u, delta, A, B, C, D, delta_bias, differentiable; None: there is none, as `said` says."""

    scan: Callable[..., Tensor] | None
    said: str
    version: str | None = None


def find(device: torch.device) -> Rival:
    """The kernel through mamba_ssm, or the bare extension; on the CPU a stand-in, so that a dry run comes by."""
    if device.type != "cuda":
        return Rival(_stand_in, "a stand-in: the portable backend")
    reasons = []
    try:
        function = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
        return Rival(_through(function), "mamba_ssm.selective_scan_fn", package_version("mamba-ssm"))
    except Exception as error:  # its package imports much that may be missing
        reasons.append(f"mamba_ssm: {one_line(error)}")
    try:
        extension = importlib.import_module("selective_scan_cuda")
        return Rival(_through_extension(extension), "selective_scan_cuda", package_version("mamba-ssm"))
    except Exception as error:
        reasons.append(f"selective_scan_cuda: {one_line(error)}")
    return Rival(None, "; ".join(reasons))


def _through(function: Callable[..., Any]) -> Callable[..., Tensor]:
    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Tensor:
        return function(u, delta, A, B, C, D, None, delta_bias=bias, delta_softplus=True)

    return scan


def _stand_in(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Tensor:
    y = selective_scan(u, delta, A, B, C, D, delta_bias=bias, delta_softplus=True, backend="portable")
    assert isinstance(y, Tensor)
    return y


def _through_extension(extension: Any) -> Callable[..., Tensor]:
    class Scan(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor
        ) -> Any:
            y, states, *_ = extension.fwd(u, delta, A, B, C, D, None, bias, True)
            ctx.save_for_backward(u, delta, A, B, C, D, bias, states)
            return y

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Any:
            u, delta, A, B, C, D, bias, states = ctx.saved_tensors
            grad_y = gradients[0].contiguous()
            found = extension.bwd(u, delta, A, B, C, D, None, bias, grad_y, states, None, None, True, False)
            return tuple(
                gradient.to(tensor.dtype) for gradient, tensor in zip(found, (u, delta, A, B, C, D, bias), strict=False)
            )

    return Scan.apply


def copies(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The arguments of a rival from those of `selective_scan_2d`, a copy of the map for each direction."""
    rows = {name: inputs[name].unbind(3) for name in ("dt_low", "B", "C")}
    dt, B, C = (torch.stack([in_order(row, k) for k, row in enumerate(of_k)], 1) for of_k in rows.values())
    return {
        "u": torch.cat([in_order(inputs["x"], k) for k in range(DIRECTIONS)], 1),
        "delta": torch.einsum("bkrl,kdr->bkdl", dt, inputs["dt_weight"].to(dt.dtype)).flatten(1, 2),
        "A": inputs["A"].flatten(0, 1),
        "B": B,
        "C": C,
        "D": inputs["D"].flatten(),
        "delta_bias": inputs["dt_bias"].flatten(),
    }


def in_order(tensor: Tensor, order: int) -> Tensor:
    """(B, H, W, M) as the sequences (B, M, L) that direction `order` reads."""
    of_rows = tensor.permute(0, 3, 1, 2)
    sequence = (of_rows.mT if order % 2 else of_rows).flatten(2)
    return sequence.flip(-1) if order >= 2 else sequence


def sum_of_directions(y: Tensor, height: int, width: int) -> Tensor:
    """The map (B, H, W, D) from what the four directions gave (B, 4 D, L)."""
    total = y.new_zeros(())
    for k, sequence in enumerate(y.unflatten(1, (DIRECTIONS, -1)).unbind(1)):
        forwards = sequence.flip(-1) if k >= 2 else sequence
        total = total + (forwards.unflatten(2, (width, height)).mT if k % 2 else forwards.unflatten(2, (height, width)))
    return total.permute(0, 2, 3, 1).contiguous()
