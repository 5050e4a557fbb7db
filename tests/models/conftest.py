from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from serpent_ir.models import create_model, list_models


@pytest.fixture(params=list_models())
def name(request: pytest.FixtureRequest) -> str:
    """Every registered model in turn."""
    return request.param


@pytest.fixture
def small() -> Callable[..., nn.Module]:
    """A small Serpent that is quick to run: two scales, 8 channels."""

    def make(**overrides: object) -> nn.Module:
        fields = {"embed_channels": 8, "depths_down": (1,), "depth_bottleneck": 1, "depths_up": (1,)} | overrides
        return create_model("serpent-l", **fields)

    return make
