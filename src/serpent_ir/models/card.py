"""What a weights file says of itself, and which model it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class ModelCard:
    """What a weights file says of itself, without its tensors.

    model: registry name. config: the fields of its configuration. task: what it was trained for, None when not said.
    provenance: whatever was noted when it was saved. dtype: of the stored tensors in safetensors' words ("F16"),
    several with commas. parameters: how many numbers are stored.
    """

    model: str
    config: dict[str, Any]
    task: str | None
    provenance: dict[str, Any]
    dtype: str
    parameters: int


def digest_of_hashes(hashes: Iterable[str]) -> str:
    """SHA-256 in hexadecimal of content hashes, one a line, in order.

    Weights hold that of their training photographs (`training_images_digest`), which says whether a list that lies
    beside them is theirs.
    """
    return hashlib.sha256("".join(f"{one}\n" for one in hashes).encode()).hexdigest()


def digest_of_model(model: nn.Module) -> str:
    """SHA-256 in hexadecimal of what kind of model it is, its `config`, and the names, types, shapes and bytes of all
    its tensors: equal for equal weights, whatever file they came from.
    """
    kind = f"{type(model).__qualname__} {getattr(model, 'config', None)!r}"
    digest = hashlib.sha256(kind.encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
