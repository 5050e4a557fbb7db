from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from serpent_ir.models import create_model
from serpent_ir.training.activation_checkpointing import BLOCKS, recompute_blocks

SMALL: dict[str, dict[str, Any]] = {
    "serpent-b": {"embed_channels": 6, "depths_down": [1, 1], "depth_bottleneck": 1, "depths_up": [0, 1]},
    "unet-32": {"channels": 4, "poolings": 2},
    "swinir-b": {"embed_channels": 8, "depths": [2], "heads": [2]},
    "restormer": {"dim": 8, "blocks": [1, 1, 1, 1], "refinement_blocks": 1},
}


class KeptForBackward:
    """Within the block, counts the numbers that autograd keeps."""

    def __enter__(self) -> KeptForBackward:
        self.numbers = 0

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            self.numbers += tensor.numel()
            return tensor

        self.hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.hooks.__exit__(*error)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_the_same_and_less_is_kept(name: str) -> None:
    options = {field: tuple(value) if isinstance(value, list) else value for field, value in SMALL[name].items()}
    plain = create_model(name, **options)
    again = copy.deepcopy(plain)
    recompute_blocks(again)
    assert any(isinstance(module, BLOCKS) for module in again.modules())
    assert list(again.state_dict()) == list(plain.state_dict())
    image = torch.rand(1, 3, 32, 40)
    kept = []
    for model in (plain, again):
        with KeptForBackward() as counter:
            loss = model(image).square().mean()
        kept.append(counter.numbers)
        loss.backward()
    assert kept[1] < 0.6 * kept[0]
    for (parameter, first), second in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert first.grad is not None and second.grad is not None, parameter
        torch.testing.assert_close(second.grad, first.grad, rtol=1e-5, atol=1e-8, msg=parameter)
