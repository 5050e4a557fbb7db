"""Parameters and multiply-accumulates, counted as the paper counts (docs/conventions.md)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import serpent_ir.models  # noqa: F401 (registers the operator serpent::scan, whose formula stands below)

Shape = torch.Size


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_gmac(model: nn.Module, height: int, width: int, batch: int = 1) -> float:
    """Billions of multiply-accumulates of one forward pass; nothing is computed (meta tensors).

    One per multiplication in convolutions and matrix products, 5 per element of a normalisation, 4 when it has no
    weights, and 9 L (K D) N + L (K D) for a scan of L pixels with L (K D) R for its step sizes;
    nothing for pointwise functions.
    """
    on_meta = copy.deepcopy(model).to("meta").eval()
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    channels = getattr(getattr(model, "config", None), "in_channels", 3)
    with counter, torch.no_grad():
        on_meta(torch.empty(batch, channels, height, width, device="meta"))
    return counter.get_total_flops() / 2 / 1e9  # torch counts a multiplication and an addition as two


def _norm(x: Shape, weight: Shape | None) -> int:
    return 2 * (4 if weight is None else 5) * x.numel()


def _layer_norm(x: Shape, shape: Shape, weight: Shape | None, *args: Any, **kwargs: Any) -> int:
    return _norm(x, weight)


def _other_norm(x: Shape, weight: Shape | None, *args: Any, **kwargs: Any) -> int:
    return _norm(x, weight)


def _scan(x: Shape, dt: Shape, b: Shape, c: Shape, a: Shape, dt_weight: Shape | None, *args: Any, **kwargs: Any) -> int:
    batch, length, _ = x
    directions, channels, states = a
    rank = 0 if dt_weight is None else dt_weight[2]
    return 2 * (9 * states + 1 + rank) * batch * length * directions * channels


def _conv_silu(x: Shape, *args: Any, **kwargs: Any) -> int:
    return 2 * 9 * x.numel()


def _norm_gate(y: Shape, z: Shape, weight: Shape, *args: Any, **kwargs: Any) -> int:
    return _norm(y, weight)


FORMULAS = {
    torch.ops.aten.native_layer_norm: _layer_norm,
    torch.ops.aten.native_group_norm: _other_norm,
    torch.ops.aten.native_batch_norm: _other_norm,
    torch.ops.aten._native_batch_norm_legit: _other_norm,  # what torch makes of an InstanceNorm on meta tensors
    torch.ops.serpent.scan: _scan,
    torch.ops.serpent.conv_silu: _conv_silu,
    torch.ops.serpent.norm_gate: _norm_gate,
}
