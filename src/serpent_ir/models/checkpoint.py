"""One file, one model: weights, configuration, task and provenance in a safetensors file.

The file explains itself: any safetensors reader finds the tensors under their PyTorch names, and in the header's
metadata (strings) `format`, `version`, `model` (registry name), `config` (JSON), `task` and `provenance` (JSON).
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from serpent_ir.errors import CheckpointError, SerpentError
from serpent_ir.models.registry import create_model

FORMAT = "serpent-ir"
VERSION = "1"


@dataclass(frozen=True)
class ModelCard:
    """What a weights file says of itself, read from its header alone."""

    model: str
    config: dict[str, Any]
    task: str | None
    provenance: dict[str, Any]
    dtype: str
    parameters: int


def save_model(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    task: str | None = None,
    provenance: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model of the registry to one safetensors file, atomically.

    Args:
        model: from `create_model` or `load_model`.
        path: usually ending in `.safetensors`; an existing file is replaced.
        task: the name of the task it was trained for.
        provenance: anything JSON can hold: recipe, data, time, score.
        dtype: store floating tensors in this type, e.g. torch.float16; as they are by default.

    Raises:
        CheckpointError: the file cannot be written there.
    """
    path = Path(path)
    configuration: Any = model.config
    config = dataclasses.asdict(configuration)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "model": config.pop("name"),
        "config": json.dumps(config),
        "task": task or "",
        "provenance": json.dumps(provenance or {}),
    }
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None, copy=True).contiguous()
        for name, tensor in model.state_dict().items()
    }
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        save_file(tensors, temporary, metadata)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise CheckpointError(f"{path} cannot be written ({error})", remedy="Choose a folder that exists.") from error


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Model, configuration, task, provenance, type and number of parameters of a weights file.

    Raises `CheckpointError` when the file is missing, damaged, or not one that `save_model` wrote.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise CheckpointError(f"{path} has no {FORMAT} header", "a file written by save_model")
        if metadata.get("version") != VERSION:
            raise CheckpointError(
                f"{path} has format version {metadata.get('version')!r}",
                repr(VERSION),
                "A newer serpent-ir may read it.",
            )
        slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118
        try:
            return ModelCard(
                model=metadata["model"],
                config=json.loads(metadata["config"]),
                task=metadata["task"] or None,
                provenance=json.loads(metadata["provenance"]),
                dtype=", ".join(sorted({piece.get_dtype() for piece in slices})),
                parameters=sum(torch.Size(piece.get_shape()).numel() for piece in slices),
            )
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path} has a damaged header ({error!r})", "a file written by save_model") from error


def load_model(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> nn.Module:
    """The model of a weights file, float32, in evaluation mode, on `device`.

    Raises:
        CheckpointError: the file is missing, damaged, not one of ours, or does not fit the model it names.
    """
    card = read_card(path)
    try:
        model = create_model(card.model, **card.config)
    except (SerpentError, TypeError) as error:
        raise CheckpointError(f"{path} describes a model that cannot be made: {error}") from error
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit {card.model}: {error}") from error
    return model.to(device).eval()


def _opened(path: str | os.PathLike[str]) -> Any:
    if not os.path.isfile(path):
        raise CheckpointError(f"no file {path}", "a .safetensors file")
    try:
        return safe_open(os.fspath(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error})",
            "a file written by save_model",
            "Pickled checkpoints are never opened: they can run any code.",
        ) from error
