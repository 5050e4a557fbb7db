"""Weights for tests by a fixed rule from names and shapes: files of expected outputs need not hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def weights(names: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """A float32 tensor for each name and its shape, the same ones for the same names in the same order.

    Normal / sqrt(fan-in) for two dimensions and more, 1 + 0.1 normal for scales of norms, 0.1 normal for biases and
    other vectors, 0.5 normal for tables of relative position biases. Buffers that models compute for themselves are
    zero: `relative_position_index` (int64) and `attn_mask`.
    """
    random = np.random.RandomState(seed)
    tensors = {}
    for name, shape in names.items():
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "relative_position_index":
            tensors[name] = torch.zeros(*shape, dtype=torch.int64)
            continue
        if leaf == "attn_mask":
            tensors[name] = torch.zeros(*shape)
            continue
        values = random.standard_normal(tuple(shape))
        if leaf == "relative_position_bias_table":
            values = 0.5 * values
        elif len(shape) >= 2:
            values = values / math.sqrt(math.prod(shape[1:]))
        else:
            values = 0.1 * values + (1 if leaf == "weight" else 0)
        tensors[name] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return tensors
