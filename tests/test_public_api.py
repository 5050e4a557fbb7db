"""The names that users may rely on: exactly these, each explained by a docstring."""

from __future__ import annotations

import importlib
import inspect
import re
import types

import pytest

import serpent_ir

PUBLIC = {
    "serpent_ir": {
        "Restorer",
        "__version__",
        "create_model",
        "list_models",
        "load_model",
        "ops",
        "restore",
        "save_model",
        "tasks",
    },
    "serpent_ir.ops": {"selective_scan", "selective_scan_2d", "use_backend"},
    "serpent_ir.tasks": {
        "AdditiveGaussianNoise",
        "AnisotropicBlur",
        "DefocusBlur",
        "Degradation",
        "Downscale",
        "GaussianBlur",
        "Holes",
        "Jpeg",
        "MotionBlur",
        "Operator",
        "PoissonNoise",
        "Rescale",
        "TaskOption",
        "compose",
        "create",
        "enlarge",
        "list_tasks",
        "load_task",
        "quantize",
        "task_options",
    },
}


@pytest.mark.parametrize("module", PUBLIC)
def test_exactly_these_names_are_public(module: str) -> None:
    assert set(importlib.import_module(module).__all__) == PUBLIC[module]


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PUBLIC.items() for name in sorted(names)]
)
def test_public_names_exist_and_are_explained(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    if name == "__version__":
        assert re.fullmatch(r"\d+\.\d+\.\d+", value)
        return
    assert isinstance(value, types.ModuleType | types.FunctionType | type)
    documentation = inspect.getdoc(value)
    assert documentation and len(documentation) > 30


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_listed_by_dir(module: str) -> None:
    assert PUBLIC[module] <= set(dir(importlib.import_module(module)))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'restaurant'"):
        _ = serpent_ir.restaurant
    with pytest.raises(ImportError):
        exec("from serpent_ir import restaurant")


def test_signatures_are_as_documented() -> None:
    assert list(inspect.signature(serpent_ir.restore).parameters) == ["image", "task", "model", "device"]
    assert list(inspect.signature(serpent_ir.create_model).parameters) == ["name", "overrides"]
    assert list(inspect.signature(serpent_ir.ops.selective_scan).parameters)[:10] == [
        "u",
        "delta",
        "A",
        "B",
        "C",
        "D",
        "z",
        "delta_bias",
        "delta_softplus",
        "return_last_state",
    ]
    assert list(inspect.signature(serpent_ir.ops.selective_scan_2d).parameters)[:8] == [
        "x",
        "dt_low",
        "B",
        "C",
        "dt_weight",
        "dt_bias",
        "A",
        "D",
    ]
