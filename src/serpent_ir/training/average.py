"""The exponential moving average of the weights, which is what is validated and saved."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` that `update_parameters(model)` moves towards it: average += (1 - d) * (weights - average).

    d = min(decay, (1 + n) / (10 + n)) after n updates, so that the random start is forgotten early. Buffers are copied.
    """

    @torch.no_grad()
    def move(averages: Sequence[Tensor], weights: Sequence[Tensor], updates: Tensor | int) -> None:
        count = int(updates)
        step = 1 - min(decay, (1 + count) / (10 + count))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, step)

    average = AveragedModel(model, multi_avg_fn=move)
    return average.requires_grad_(False)
