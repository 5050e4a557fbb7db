"""Serpent: image restoration with multi-scale selective state space models.

The public names are loaded when they are first used, so that `import serpent_ir` itself costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serpent_ir import ops, tasks
    from serpent_ir.models import create_model, list_models, load_model, save_model
    from serpent_ir.restoration import Restorer, restore

__version__ = "0.1.0"

__all__ = [
    "Restorer",
    "__version__",
    "create_model",
    "list_models",
    "load_model",
    "ops",
    "restore",
    "save_model",
    "tasks",
]

_SUBPACKAGES = ("ops", "tasks")
_DEFINED_IN = {
    "Restorer": "restoration",
    "create_model": "models",
    "list_models": "models",
    "load_model": "models",
    "restore": "restoration",
    "save_model": "models",
}


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _DEFINED_IN:
        value = getattr(importlib.import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
