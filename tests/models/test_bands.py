"""Passes without gradients: the same results as with them, in less memory; nothing overwritten that is not theirs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tolerances import relative_error
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from serpent_ir.models import bands, create_model
from serpent_ir.models.bands import can_go_in_bands
from serpent_ir.models.serpent import GatedConvBlock, PatchExpanding, PatchMerging, VSSBlock
from serpent_ir.ops import native, use_backend

Small = Callable[..., nn.Module]
pytestmark = pytest.mark.skipif(native.unavailable is not None, reason="the compiled part is not installed")

band_sizes = pytest.mark.parametrize("band", [1, 2000, 6000, 2**22])
"""Bands of two rows, of a few rows, of some images, of everything."""


def without_gradients(model: nn.Module, *inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return model(*inputs)


@band_sizes
@pytest.mark.parametrize("block", ["vss", "conv"])
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 3, 21, 9), (2, 3, 40, 24)])
def test_models_do_not_depend_on_bands(
    monkeypatch: pytest.MonkeyPatch,
    nan_filled_memory: None,
    small: Small,
    band: int,
    block: str,
    shape: tuple[int, ...],
) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", band)
    model, image = small(block=block), torch.rand(shape)
    before = image.clone()
    assert relative_error(without_gradients(model, image), model(image).detach()) < 1e-5
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    "overrides", [{"skip": "concat"}, {"input_skip": True}, {"depths_up": (0,)}, {"patch_size": 1}]
)
def test_variants_do_not_depend_on_bands(
    monkeypatch: pytest.MonkeyPatch, nan_filled_memory: None, small: Small, overrides: dict[str, object]
) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", 3000)
    model, image = small(**overrides).double(), torch.rand(2, 3, 18, 14, dtype=torch.float64)
    assert relative_error(without_gradients(model, image), model(image).detach()) < 1e-12


@band_sizes
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (8, 1), (9, 5)])
def test_parts_do_not_depend_on_bands(
    monkeypatch: pytest.MonkeyPatch, nan_filled_memory: None, band: int, height: int, width: int
) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", band)
    x = torch.randn(3, height, width, 12)
    even = torch.randn(3, 2 * height, 2 * width, 12)
    half = torch.randn(3, 2 * height, 2 * width, 6)
    cases: list[tuple[nn.Module, tuple[Tensor, ...]]] = [
        (VSSBlock(12, 4, 2, 2, 3), (x,)),
        (GatedConvBlock(12, 21), (x,)),
        (GatedConvBlock(12, 21), (x.transpose(1, 2),)),
        (PatchMerging(12), (even,)),
        (PatchExpanding(12), (x, half)),
        (PatchExpanding(12), (x.transpose(1, 2).contiguous().transpose(1, 2), half)),
    ]
    for module, inputs in cases:
        for name, parameter in module.named_parameters():
            if "norm" in name:
                nn.init.normal_(parameter)  # else weights are 1 and biases 0
        expected = module(*inputs).detach()
        assert relative_error(without_gradients(module, *(t.clone() for t in inputs)), expected) < 1e-5


def test_only_what_may_be_overwritten_is() -> None:
    x, block = torch.randn(1, 4, 5, 12), VSSBlock(12, 4, 2, 2, 3)
    before = x.clone()
    result = without_gradients(block, x)
    assert torch.equal(x, before) and result.data_ptr() != x.data_ptr()
    with torch.no_grad():
        assert block(x, overwrite=True).data_ptr() == x.data_ptr()
    assert torch.equal(x, result)


def test_a_module_that_somebody_looks_at_is_called() -> None:
    block, x = GatedConvBlock(6, 10), torch.randn(1, 4, 5, 6)
    plain = without_gradients(block, x)
    seen: list[tuple[int, ...]] = []
    handle = block.in_proj.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    torch.testing.assert_close(without_gradients(block, x), plain)
    assert seen == [(1, 4, 5, 20)]
    handle.remove()
    block.norm = nn.Identity()  # type: ignore[assignment]
    assert not torch.allclose(without_gradients(block, x), plain, atol=1e-3)


def test_when_bands_are_for() -> None:
    layer, x = nn.Linear(3, 3, bias=False), torch.rand(1, 2, 2, 3)
    assert not can_go_in_bands(x, layer)  # gradients
    with torch.inference_mode():
        assert can_go_in_bands(x, layer)
    with torch.no_grad():
        assert can_go_in_bands(x, layer)
        assert not can_go_in_bands(x.bfloat16(), layer.bfloat16())
        assert not can_go_in_bands(x.to("meta"), nn.Linear(3, 3, device="meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not can_go_in_bands(x, nn.Linear(3, 3, bias=False))
        with FlopCounterMode(display=False):
            assert not can_go_in_bands(x, nn.Linear(3, 3, bias=False))
        with use_backend("portable"):
            assert not can_go_in_bands(x, nn.Linear(3, 3, bias=False))


def test_hooks_keep_what_they_were_shown() -> None:
    model = create_model("serpent-b", depths_down=(1, 1, 1), depths_up=(0, 1, 1), depth_bottleneck=1).eval()
    image = torch.rand(1, 3, 32, 32)
    expected = without_gradients(model, image)
    shown: list[tuple[torch.Tensor, torch.Tensor]] = []
    for module in (model.embed, model.down[0], model.down[0][0], model.merge[0], model.expand[0], model.bottleneck):
        module.register_forward_hook(lambda _module, _inputs, output: shown.append((output, output.clone())))
    assert relative_error(without_gradients(model, image), expected) < 1e-5
    assert len(shown) == 6
    assert all(torch.equal(output, copy) for output, copy in shown)


def test_replaced_and_altered_modules_are_called() -> None:
    model = create_model("serpent-b", depths_down=(2, 1, 1), depths_up=(0, 1, 1), depth_bottleneck=1).eval()
    image = torch.rand(1, 3, 32, 32)
    block = model.down[0][0]
    alterations = (
        lambda: setattr(block, "in_proj", torch.nn.Linear(32, 128)),
        lambda: setattr(block, "conv", torch.nn.Conv2d(64, 64, 5, padding=2, groups=64)),
        lambda: setattr(block, "scan_norm", torch.nn.LayerNorm(64, bias=False)),
        lambda: setattr(block.norm, "forward", torch.tanh),
        lambda: model.down[0].__setitem__(1, torch.nn.Identity()),
    )
    before = without_gradients(model, image)
    for alter in alterations:
        alter()
        after = without_gradients(model, image)
        assert not torch.equal(after, before)
        assert relative_error(after, model(image).detach()) < 1e-5
        before = after


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes that tensors made by `run` took at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


def test_memory_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", 2**16)
    model = create_model("serpent-b", depths_down=(1, 1, 1), depths_up=(0, 1, 1), depth_bottleneck=1)
    image = torch.rand(1, 3, 512, 512)
    pixels = image[0, 0].numel() // 4**2
    # While the first scan runs: x, what goes into it and comes out of it, and the rows of x_proj.
    needed = 4 * pixels * (32 + 64 + 64 + 4 * (2 + 2 * 6))
    slack = 4 * 4 * 64 * 6 * 4 + 2**18  # the last states, and the kernels' scratch memory
    assert needed < peak_bytes(lambda: without_gradients(model, image)) < needed + slack
