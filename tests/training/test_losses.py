from __future__ import annotations

import pytest
import torch

from serpent_ir.training.losses import LOSSES


def test_values() -> None:
    restored, clean = torch.tensor([[0.0, 0.5]]), torch.tensor([[0.3, 0.1]])
    assert LOSSES["l1"](restored, clean).item() == pytest.approx(0.35)
    assert LOSSES["mse"](restored, clean).item() == pytest.approx((0.09 + 0.16) / 2)
    expected = ((0.09 + 1e-6) ** 0.5 + (0.16 + 1e-6) ** 0.5) / 2
    assert LOSSES["charbonnier"](restored, clean).item() == pytest.approx(expected)


def test_charbonnier_has_a_gradient_at_zero() -> None:
    restored = torch.zeros(3, requires_grad=True)
    LOSSES["charbonnier"](restored, torch.zeros(3)).backward()
    assert torch.equal(restored.grad, torch.zeros(3))
