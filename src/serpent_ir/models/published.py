"""Weights files that the authors of SwinIR and Restormer publish: pickled dictionaries of tensors.

Nothing but tensors and plain containers is unpickled (torch's `weights_only=True`). Which model it is, and of what
sizes, follows from the names and shapes of the tensors alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from serpent_ir.errors import CheckpointError
from serpent_ir.models import restormer, swinir
from serpent_ir.models.card import ModelCard

SUFFIXES = (".pth", ".pt")
_KEYS = ("params_ema", "params", "state_dict")  # under which authors put the tensors; the averaged ones come first


def is_published(path: str | os.PathLike[str]) -> bool:
    """Whether a file of this name is taken for one that authors publish."""
    return os.fspath(path).lower().endswith(SUFFIXES)


def read_published(path: str | os.PathLike[str]) -> tuple[ModelCard, dict[str, Tensor]]:
    """The card of the model in a published weights file, and its tensors under our names.

    The card's model is a registry name; its config has every field that the tensors tell.

    Raises:
        CheckpointError: the file is missing, damaged, holds more than tensors, or weights of an unknown model.
    """
    state = _tensors(path)
    if found := swinir.from_published(state):
        name = "swinir-sr" if found[0]["upsampler"] else "swinir"
    elif found := restormer.from_published(state):
        name = "restormer-48"
    else:
        raise CheckpointError(
            f"{path} holds {len(state)} tensors of an unknown model, the first of them {next(iter(state), None)!r}",
            "the published weights of SwinIR or Restormer",
        )
    config, tensors = found
    types = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    parameters = sum(tensor.numel() for tensor in tensors.values())
    card = ModelCard(name, config, None, {"published as": os.path.basename(path)}, ", ".join(types), parameters)
    return card, tensors


def _tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The dictionary of tensors in a pickled file, wherever its authors put it."""
    if not os.path.isfile(path):
        raise CheckpointError(f"no file {path}", "a weights file")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes torch raise nearly anything
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {reason})",
            "a file of nothing but tensors",
            "Files that hold other objects are refused: they can run any code.",
        ) from error
    for key in _KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds no dictionary of tensors", "the published weights of SwinIR or Restormer")
    state = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    odd = [
        name
        for name, tensor in state.items()
        if tensor.is_nested or (tensor.layout, tensor.device.type) != (torch.strided, "cpu")
    ]
    if odd:
        raise CheckpointError(f"tensor {odd[0]} of {path} is not an ordinary one", "dense tensors with their data")
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state.values()}
    if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > sum(storages.values()):
        raise CheckpointError(f"the tensors of {path} have more elements than the file holds", "each with its own data")
    return state
