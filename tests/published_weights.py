"""What the programs of other authors give for weights that a fixed rule makes from names and shapes.

`models/published/FAMILY.json` has for each case the names and shapes in the authors' state dict, the seed of the
weights, and the configuration that should be recognised; `FAMILY.npz` an image and the authors' output.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "models" / "published"
CASES: dict[str, dict[str, dict[str, Any]]] = {
    family: json.loads((FOLDER / f"{family}.json").read_text())["cases"] for family in ("swinir", "restormer")
}


def published(family: str, case: str) -> dict[str, Tensor]:
    """What the authors' file of a case holds: parameters and buffers under their names."""
    return weights(CASES[family][case]["names"], CASES[family][case]["seed"])


def example(family: str, case: str) -> tuple[Tensor, Tensor]:
    """An image (B, C, H, W), float64 in [0, 1], and what the authors' program makes of it with these weights."""
    with np.load(FOLDER / f"{family}.npz") as arrays:
        return torch.from_numpy(arrays[f"{case}/input"]).double() / 255, torch.from_numpy(arrays[f"{case}/output"])


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
