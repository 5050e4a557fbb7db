"""What conv_silu and norm_gate compute, in plain torch, with its own autograd."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def plain_conv_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    before = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=x.shape[3]).permute(0, 2, 3, 1)
    return before * torch.sigmoid(before)


def plain_norm_gate(y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, epsilon: float = 1e-5) -> Tensor:
    mean, variance = y.mean(-1, keepdim=True), y.var(-1, keepdim=True, unbiased=False)
    return ((y - mean) / (variance + epsilon).sqrt() * weight + bias) * z * torch.sigmoid(z)
