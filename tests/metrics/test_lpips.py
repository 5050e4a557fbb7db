from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from serpent_ir.errors import CheckpointError, DtypeError, ShapeError
from serpent_ir.metrics import Lpips
from serpent_ir.metrics.lpips_weights import HEADS

AlexNet = tuple[nn.Sequential, dict[str, Tensor]]


def heads() -> list[Tensor]:
    tensors = load_file(HEADS)
    return [tensors[f"lin{index}"] for index in range(5)]


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (1, 3, 31, 75), (1, 3, 127, 66)])
def test_equals_the_implementation_in_torchmetrics(
    alexnet: AlexNet, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs is the authors' program, with the authors' heads; AlexNet's weights are random here, the same in both."""
    from torchmetrics.functional.image import lpips as theirs

    features, state = alexnet
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda net, pretrained: features)
    reference = theirs._LPIPS(net="alex")
    image, target = torch.rand(shape), torch.rand(shape)
    with torch.no_grad():
        expected = reference(image, target, normalize=True).view(-1).double()
    found = Lpips(state, heads())(image, target)
    assert found.dtype == torch.float64 and found.shape == shape[:1] and expected.min() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_is_zero_for_equal_images_and_grows(alexnet: AlexNet) -> None:
    lpips = Lpips(alexnet[1], heads())
    clean, noise = torch.rand(1, 3, 48, 48), torch.randn(1, 3, 48, 48)
    values = [lpips((clean + sigma * noise).double(), clean.double()).item() for sigma in (0.0, 0.02, 0.1, 0.3)]
    assert values[0] == 0 and values == sorted(values) and values[1] > 0


def test_black_regions_without_features_are_no_problem(alexnet: AlexNet) -> None:
    state = {name: torch.zeros_like(tensor) for name, tensor in alexnet[1].items()}
    assert Lpips(state, heads())(torch.rand(1, 3, 40, 40), torch.rand(1, 3, 40, 40)).item() == 0


def test_refuses_what_it_cannot_score(alexnet: AlexNet) -> None:
    lpips = Lpips(alexnet[1], heads())
    with pytest.raises(ShapeError, match="at least 31 x 31"):
        lpips(torch.rand(1, 3, 30, 64), torch.rand(1, 3, 30, 64))
    with pytest.raises(ShapeError, match="3 channels"):
        lpips(torch.rand(1, 1, 64, 64), torch.rand(1, 1, 64, 64))
    with pytest.raises(DtypeError):
        lpips(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.rand(1, 3, 64, 64))


def test_refuses_tensors_that_do_not_fit(alexnet: AlexNet) -> None:
    state = dict(alexnet[1])
    state["features.3.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"features\.3\.bias is of shape \(3,\)"):
        Lpips(state, heads())
    del state["features.3.bias"]
    with pytest.raises(CheckpointError, match=r"features\.3\.bias is missing"):
        Lpips(state, heads())
    with pytest.raises(CheckpointError, match="heads of shapes"):
        Lpips(alexnet[1], heads()[:4])
