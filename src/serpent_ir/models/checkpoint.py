"""One file, one model: weights, configuration, task and provenance in a safetensors file.

Such a file explains itself: any safetensors reader finds the tensors under their PyTorch names, and in the header's
metadata (strings) `format`, `version`, `model` (registry name), `config` (JSON), `task` and `provenance` (JSON).
The files that the authors of other models publish are read as well (published.py).
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from serpent_ir.errors import CheckpointError, SerpentError
from serpent_ir.files import replacing
from serpent_ir.models.card import ModelCard
from serpent_ir.models.published import is_published, read_published
from serpent_ir.models.registry import create_model

FORMAT = "serpent-ir"
VERSION = "1"


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
        CheckpointError: the file cannot be written there, or the provenance is nothing that JSON can hold.
    """
    path = Path(path)
    configuration: Any = model.config
    config = dataclasses.asdict(configuration)
    try:
        facts = json.dumps(provenance or {}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the provenance cannot be stored ({error})", "what JSON can hold") from error
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "model": config.pop("name"),
        "config": json.dumps(config),
        "task": task or "",
        "provenance": facts,
    }
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None, copy=True).contiguous()
        for name, tensor in model.state_dict().items()
    }
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be written ({error})", remedy="Choose a folder that exists.") from error


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Model, configuration, task, provenance, type and number of parameters of a weights file.

    Of a file that `save_model` wrote, only the header is read. Raises `CheckpointError` when the file is missing,
    damaged, or of another kind.
    """
    if is_published(path):
        return read_published(path)[0]
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
                config=_json_object(metadata["config"]),
                task=metadata["task"] or None,
                provenance=_json_object(metadata["provenance"]),
                dtype=", ".join(sorted({piece.get_dtype() for piece in slices})),
                parameters=sum(torch.Size(piece.get_shape()).numel() for piece in slices),
            )
        except (KeyError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} has a damaged header ({error!r})", "a file written by save_model") from error


def load_model(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> nn.Module:
    """The model of a weights file, float32, in evaluation mode, on `device`.

    path: a file that `save_model` wrote; or one of those that the authors of SwinIR or Restormer publish, which ends in
        `.pth` or `.pt`: architecture and sizes are recognised from its tensors, and nothing but tensors is unpickled.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or does not fit the model it names.
    """
    return load_with_card(path, device)[0]


def load_with_card(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> tuple[nn.Module, ModelCard]:
    """What `load_model` returns, and what the file says of itself."""
    if is_published(path):
        card, tensors = read_published(path)
        _check_fit(path, card, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    else:
        card = read_card(path)
        with _opened(path) as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _check_fit(path, card, shapes)
            tensors = {name: file.get_tensor(name) for name in shapes}
    if not all(tensor.is_floating_point() for tensor in tensors.values()):
        raise CheckpointError(f"{path} holds tensors of {card.dtype}", "floating point")
    model = create_model(card.model, **card.config)
    model.load_state_dict(tensors)
    return model.to(device).eval(), card


def _check_fit(path: str | os.PathLike[str], card: ModelCard, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError unless the model that the card describes has parameters of just these names and shapes."""
    try:
        with torch.device("meta"):  # no memory is taken before the file is known to hold that many numbers
            expected = create_model(card.model, **card.config).state_dict()
    except (SerpentError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} describes a model that cannot be made: {error}") from error
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    if shapes != wanted:
        different = sorted(dict(shapes.items() ^ wanted.items()))
        raise CheckpointError(
            f"{path} does not fit {card.model}: {len(different)} tensors are missing, unknown, or of another shape,"
            f" the first of them {different[0]}"
        )


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{text[:40]!r} is no JSON object")
    return value


def _opened(path: str | os.PathLike[str]) -> Any:
    if not os.path.isfile(path):
        raise CheckpointError(f"no file {path}", "a .safetensors file")
    try:
        return safe_open(os.fspath(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error})",
            "a file written by save_model",
            "Of pickled files, only .pth and .pt with the weights of SwinIR or Restormer are read.",
        ) from error
