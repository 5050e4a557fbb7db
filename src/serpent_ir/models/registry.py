"""Model names and what they stand for."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from serpent_ir.errors import RangeError, UnknownNameError
from serpent_ir.models.restormer import Restormer, RestormerConfig
from serpent_ir.models.serpent import Serpent, SerpentConfig
from serpent_ir.models.swinir import SwinIR, SwinIRConfig
from serpent_ir.models.unet import UNet, UNetConfig

# SwinIR as its authors have it, larger than in the comparison with Serpent.
_SWINIR = SwinIRConfig("swinir", embed_channels=180, depths=(6,) * 6, heads=(6,) * 6, mlp_ratio=2.0)

_MODELS: dict[str, tuple[type[nn.Module], Any]] = {
    "serpent-b": (Serpent, SerpentConfig("serpent-b", patch_size=4)),
    "serpent-l": (Serpent, SerpentConfig("serpent-l", patch_size=2)),
    "serpent-h": (Serpent, SerpentConfig("serpent-h", patch_size=1)),
    "unet-32": (UNet, UNetConfig("unet-32", channels=32)),
    "unet-128": (UNet, UNetConfig("unet-128", channels=128)),
    "swinir-b": (SwinIR, SwinIRConfig("swinir-b", embed_channels=96)),
    "swinir-l": (SwinIR, SwinIRConfig("swinir-l", embed_channels=180)),
    "restormer": (Restormer, RestormerConfig("restormer", dim=24)),
    "swinir": (SwinIR, _SWINIR),
    "swinir-sr": (SwinIR, dataclasses.replace(_SWINIR, name="swinir-sr", upsampler="pixelshuffle", upscale=2)),
    "restormer-48": (Restormer, RestormerConfig("restormer-48", dim=48)),
}


def list_models() -> list[str]:
    """The names that `create_model` knows."""
    return list(_MODELS)


def create_model(name: str, **overrides: Any) -> nn.Module:
    """A freshly initialised model, float32 on the CPU; `model.config` is its frozen configuration.

    Args:
        name: one of `list_models()`.
        overrides: fields of the model's configuration, e.g. `directions=2`.

    Raises:
        UnknownNameError: no such model, or no such field.
        RangeError: a value that the configuration does not admit, or of another type.
    """
    if name not in _MODELS:
        raise UnknownNameError(f"model {name!r}", f"one of {', '.join(_MODELS)}")
    model, config = _MODELS[name]
    fields = [field.name for field in dataclasses.fields(config) if field.name != "name"]
    for override, value in overrides.items():
        if override not in fields:
            raise UnknownNameError(f"field {override!r} of {name}", f"one of {', '.join(fields)}")
        default = getattr(config, override)
        if not _of_same_type(value, default):
            raise RangeError(f"{override}={value!r} of {name}", f"a value such as {default!r}")
    return model(dataclasses.replace(config, **overrides))


def _of_same_type(value: Any, default: Any) -> bool:
    """Whether a field can hold the value, judged by the type of its default; JSON has lists for tuples."""
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(type(item) is int for item in value)
    if isinstance(default, float):
        return type(value) in (int, float)
    return type(value) is type(default)
