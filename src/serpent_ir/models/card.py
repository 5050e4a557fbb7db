"""What a weights file says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
