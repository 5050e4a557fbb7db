from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from serpent_ir.efficiency.pass_memory import RESERVE, RESERVE_IN_PLACE, LiveBytes, in_place_bytes, pass_bytes
from serpent_ir.models import create_model
from serpent_ir.ops import native, use_backend


class Steps(nn.Module):
    """Three maps of 4 channels, of which two are alive at a time, and the input beside them."""

    def forward(self, image: Tensor) -> Tensor:
        x = image.repeat(1, 4, 1, 1)
        x = x * 2
        x = x + 1
        return x.view(-1)[: image.numel()].view(image.shape)


def test_what_is_alive_is_counted_once() -> None:
    image = torch.empty(1, 1, 100, 50, device="meta")
    with LiveBytes() as live:
        result = Steps()(image)
    assert live.peak == 2 * 4 * 4 * 5000
    assert live.live == 4 * 4 * 5000  # a view keeps all of it
    del result
    assert live.live == 0


def test_a_pass_takes_what_its_maps_do() -> None:
    assert pass_bytes(Steps(), 1, 100, 50) == int(RESERVE * 2 * 4 * 4 * 5000)


@pytest.mark.skipif(native.unavailable is not None, reason="the compiled part is not installed")
@pytest.mark.parametrize(("name", "patch"), [("serpent-b", 4), ("serpent-l", 2), ("serpent-h", 1)])
def test_a_serpent_holds_the_maps_of_a_block_of_the_first_scale(name: str, patch: int) -> None:
    """x, a, the rows of the scan and y: 32 + 64 + 4 (2 + 12) + 64 numbers for each patch."""
    model = create_model(name)
    pixels = (512 // patch) ** 2
    assert in_place_bytes(model, 512, 512) == 4 * 216 * pixels
    assert pass_bytes(model, 3, 512, 512) == int(RESERVE_IN_PLACE * 4 * 216 * pixels)
    assert pass_bytes(model, 3, 511, 512) > pass_bytes(model, 3, 512, 512)  # the padded copy
    with use_backend("portable"):
        assert pass_bytes(model, 3, 512, 512) > 1.2 * 4 * 216 * pixels  # nothing is done in place


def test_the_model_stays_where_it_is() -> None:
    model = create_model("unet-32", channels=4).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert pass_bytes(model, 3, 64, 64) > 0
    assert model.training and all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
