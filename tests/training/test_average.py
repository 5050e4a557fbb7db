from __future__ import annotations

import pytest
import torch
from torch import nn

from serpent_ir.training.average import averaged


def test_average_follows_the_definition() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 5.0)
    average = averaged(model, decay=0.9)
    expected = 1.0
    for count, weight in enumerate([1.0, 2.0, -3.0, 4.0]):
        nn.init.constant_(model.weight, weight)
        average.update_parameters(model)
        if count:  # the first update copies
            decay = min(0.9, (1 + count) / (10 + count))
            expected = decay * expected + (1 - decay) * weight
        assert average.module.weight.item() == pytest.approx(expected)


def test_average_is_apart_from_the_model() -> None:
    model = nn.Linear(2, 2)
    average = averaged(model, decay=0.999)
    before = model.weight.detach().clone()
    nn.init.zeros_(average.module.weight)
    assert torch.equal(model.weight, before)
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
